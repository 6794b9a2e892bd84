"""Format numbers and tables as plain text."""

from __future__ import annotations

import html
from collections.abc import Iterable


def three_digits(value: float) -> str:
    """Format a number to three significant digits, as in ``168,000``."""
    return f"{float(f'{value:.3g}'):,.10g}"


def format_seconds(seconds: float) -> str:
    """Format a time to three significant digits, as in ``6.67 s`` or ``312 µs``."""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if float(f"{seconds:.3g}") >= size:
            return f"{three_digits(seconds / size)} {unit}"
    return f"{three_digits(seconds / 1e-9)} ns"


def align(lines: list[list[str]], sides: str) -> list[str]:
    """Align cells in columns, with a rule under the first line; `sides` has ``<`` or ``>`` for each column."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)).rstrip()
        for line in lines
    ]
    return [texts[0], "-" * max(map(len, texts)), *texts[1:]]


def html_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write cells as a table in HTML."""
    line = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{line}</tr></thead><tbody>{body}</tbody></table>"


def html_lines(lines: Iterable[str]) -> str:
    """Write lines of text as paragraphs in HTML."""
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines if line)
