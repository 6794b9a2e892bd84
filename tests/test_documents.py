"""The documents say what is so: their Python blocks print what they say, and their figures are those measured."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = {"en": ROOT / "README.md", "zh": ROOT / "README.zh-CN.md"}
DOCUMENTS = [file for file in (*READMES.values(), *sorted((ROOT / "docs").rglob("*.md"))) if file.exists()]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n^```text\n(.*?)^```$)?", re.M | re.S)


def blocks_of(file):
    return BLOCK.findall(file.read_text(encoding="utf-8"))


def output_of(code, names, file):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(file), "exec"), names)
    return printed.getvalue()


@pytest.mark.parametrize("file", [file for file in DOCUMENTS if blocks_of(file)], ids=lambda file: file.name)
def test_python_blocks_print_what_they_say(file, monkeypatch, tmp_path):
    """In order, in one interpreter: a block may use what those before it defined."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "document"}
    for code, expected in blocks_of(file):
        assert output_of(code, names, file) == expected, code


def test_the_readmes_have_blocks_that_print():
    if not READMES["en"].exists():
        pytest.skip("the README is not beside the tests")
    for file in READMES.values():
        assert sum(bool(expected) for _, expected in blocks_of(file)) >= 8, file


def test_both_readmes_have_the_same_blocks():
    if not READMES["zh"].exists():
        pytest.skip("the README is not beside the tests")
    assert blocks_of(READMES["en"]) == blocks_of(READMES["zh"])


@pytest.fixture
def figures():
    file = ROOT / "benchmarks" / "figures.py"
    if not file.exists():
        pytest.skip("the benchmarks are not beside the tests")
    spec = importlib.util.spec_from_file_location("figures", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("language", READMES)
def test_figures_are_those_of_the_results(figures, language):
    """`python benchmarks/figures.py` writes them."""
    sections = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    text = READMES[language].read_text(encoding="utf-8")
    assert len(figures.BLOCK.findall(text)) == len(figures.TABLES)
    assert figures.filled(text, sections, language) == text


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_what_a_document_links_to_is_there(file):
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (file.parent / target).exists(), target


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_print_what_they_say(file, capsys):
    """What an example prints stands at its end, in comments."""
    text = file.read_text(encoding="utf-8")
    assert 20 <= len(text.splitlines()) <= 50
    if "distributed" in text:
        pytest.importorskip("distributed")
        done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=True, timeout=120)
        printed = done.stdout
    else:
        runpy.run_path(str(file), run_name="__main__")
        printed = capsys.readouterr().out
    (expected,) = re.findall(r"\n# Prints:\n((?:#.*\n)+)\Z", text)
    assert printed == re.sub(r"^# ?", "", expected, flags=re.M)


def test_there_are_six_examples():
    if not (ROOT / "docs").exists():
        pytest.skip("the documents are not beside the tests")
    assert len(EXAMPLES) == 6
