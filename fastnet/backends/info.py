"""What was built and what is in use."""

from __future__ import annotations

from importlib.metadata import version

from fastnet._tools.interrupts import HeldInterrupts
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
        with HeldInterrupts():
            from fastnet.backends import _cpp  # here, since it cannot be imported without the extension

        info |= _cpp.build_details()
    info["num_threads"] = choice.get_num_threads()
    return info
