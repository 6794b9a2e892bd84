"""What was built and what is in use."""

from __future__ import annotations

from importlib.metadata import version

from fastnet._tools.importing import import_whole
from fastnet.backends import choice


def build_info() -> dict[str, str | int | None]:
    """Which version, backend, instruction set, compiler and threads compute.

    Returns
    -------
    dict
        ``version``, ``backend``, ``isa`` (instruction set), ``compiler``, ``threading``, ``num_threads``. ``isa``,
        ``compiler`` and ``threading`` describe the compiled extension, whichever backend is in use; they are None
        where it was not built.

    Examples
    --------
    >>> import fastnet
    >>> sorted(fastnet.build_info())
    ['backend', 'compiler', 'isa', 'num_threads', 'threading', 'version']
    """
    info: dict[str, str | int | None] = {"version": version("fastnet"), "backend": choice.active().name}
    info |= dict.fromkeys(("isa", "compiler", "threading"))
    if choice.has_extension():
        info |= import_whole("fastnet.backends._cpp").build_details()  # not there without the extension
    info["num_threads"] = choice.get_num_threads()
    return info
