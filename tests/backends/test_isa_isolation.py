"""No code is shared between the instruction sets: the linker would keep one copy of it, and it may be the wrong one.

An inline function or a template's instance has a weak symbol in every object file that uses it. If two of these were
compiled for different instruction sets, a processor without AVX-512 may be given the copy that needs it. So whatever
the kernels' object files offer to the linker must live in the namespace of their instruction set.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastnet import backends

NM, OBJDUMP = shutil.which("nm"), shutil.which("objdump")
ROOT = Path(__file__).parents[2]


def object_files():
    """The object files that the extension was linked from: the instruction set, or what else it is, to files."""
    from fastnet import _core

    builds = sorted(ROOT.glob("build/*/CMakeFiles"), key=lambda folder: folder.stat().st_mtime)
    # An editable install imports its extension from there; otherwise the newest is the one that was installed.
    builds += [folder for folder in builds if folder.parent in Path(_core.__file__).parents]
    groups = {}
    for file in builds[-1].glob("*.dir/**/*.o") if builds else ():
        group = file.relative_to(builds[-1]).parts[0].removesuffix(".dir").removeprefix("kernels_")
        groups.setdefault(group, []).append(file)
    return groups


@pytest.fixture(scope="module")
def objects():
    if not sys.platform.startswith("linux"):
        pytest.skip("object files are read on Linux alone")
    if NM is None:
        pytest.skip("nm is not installed")
    if not backends.has_extension():
        pytest.skip("fastnet was installed without its extension")
    found = object_files()
    if "baseline" not in found:
        pytest.skip("the object files of the build are not here: an installed wheel does not tell what was shared")
    return found


def offered_symbols(files):
    """(type, mangled name) of what the linker may use from other files too: global, weak and unique symbols."""
    output = subprocess.run(
        [NM, "--defined-only", "--extern-only", "--format=posix", *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [line.split() for line in output.splitlines() if line and not line.endswith(":")]
    return {(row[1], row[0]) for row in rows}


def is_code_or_constant(name):
    # A pointer to the C++ runtime's one handler of exceptions, the same in every object file: no code of ours.
    return name != "DW.ref.__gxx_personality_v0"


def kernels(objects):
    return {isa: files for isa, files in objects.items() if isa in ("avx512", "avx2", "baseline")}


def test_every_kernel_symbol_lives_in_its_own_namespace(objects):
    for isa, files in kernels(objects).items():
        symbols = {name for _, name in offered_symbols(files) if is_code_or_constant(name)}
        assert symbols, isa
        # Mangled, a name in namespace fastnet::avx2 starts with _ZN7fastnet4avx2; Z and K.. mark what belongs to one.
        own = re.compile(rf"_Z(GV|GR|TV|TS|TI)?Z*(Z?N[VK]*)+7fastnet{len(isa)}{isa}")
        assert not {name for name in symbols if not own.match(name)}, isa


def test_no_symbol_is_offered_twice(objects):
    """Neither by two instruction sets, nor by one and the code around them, which is compiled for any processor."""
    names = {group: {name for _, name in offered_symbols(files)} for group, files in objects.items()}
    for isa in kernels(objects):
        for group in names.keys() - {isa}:
            shared = {name for name in names[isa] & names[group] if is_code_or_constant(name)}
            assert not shared, f"{isa} and {group}"


def test_every_instruction_set_has_the_same_kernels(objects):
    """Nothing is missing in one of them: the table of kernels is there, once each."""
    for isa, files in kernels(objects).items():
        tables = [name for _, name in offered_symbols(files) if name == f"_ZN7fastnet{len(isa)}{isa}5tableE"]
        assert len(tables) == 1, isa


def test_code_for_every_processor_uses_no_wide_registers(objects):
    """The baseline and all that surrounds the kernels must run on any x86-64: no ymm, no zmm, no mask registers."""
    if "avx2" not in objects:
        pytest.skip("this processor's family has one instruction set")
    if OBJDUMP is None:
        pytest.skip("objdump is not installed")

    def wide(files):
        text = subprocess.run(
            [OBJDUMP, "--disassemble", "--no-show-raw-insn", *map(str, files)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return set(re.findall(r"%([yz])mm\d", text))

    found = {group: wide(files) for group, files in objects.items()}
    assert found.pop("avx512") >= {"z"}
    assert found.pop("avx2") == {"y"}
    assert found == {group: set() for group in found}
