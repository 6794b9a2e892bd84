"""What was built and what is in use."""

from __future__ import annotations

from fastnet.backends import choice as backends


def build_info() -> dict[str, str | int | None]:
    """Which version, backend, instruction set, compiler and threads compute.

    Returns
    -------
    dict
        ``version``, ``backend``, ``isa`` (instruction set), ``compiler``, ``threading``, ``num_threads``. The
        extension's own entries are None where it was not built; they tell of it also while another backend is in use.
    """
    from importlib.metadata import version

    info: dict[str, str | int | None] = {"version": version("fastnet"), "backend": backends.active().name}
    info |= dict.fromkeys(("isa", "compiler", "threading"))
    if backends.has_extension():
        from fastnet import _core

        info |= {"isa": _core.isa(), "compiler": _core.compiler, "threading": _core.threading}
    info["num_threads"] = backends.get_num_threads()
    return info
