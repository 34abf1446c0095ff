"""Printing: raw bytes, JSON and plain tables.

Values leave as the bytes that they are. Tables are drawn by hand: importing rich takes longer than the request. In a table, bytes
that are no readable text are escaped, so that a stored value cannot command the terminal.
"""

import sys
from typing import Any, Sequence

CELL_CHARACTERS_MAX = 80  # a SHA-256 and the texts of errors fit


def write_bytes(data: bytes) -> None:
    """Raw bytes to standard output. Raises BrokenPipeError and other OSErrors."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_line(text: str) -> None:
    write_bytes(text.encode("utf-8", "surrogateescape") + b"\n")


def write_json(document: Any) -> None:
    """One line of JSON in UTF-8, whatever the locale says."""
    import json

    write_line(json.dumps(document, ensure_ascii=False))


def write_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns aligned with two spaces between them; nothing but the headings when there are no rows."""
    cells = [[shortened(str(cell)) for cell in row] for row in rows]
    assert all(len(row) == len(headings) for row in cells), "a cell for every heading"
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    for row in [[heading.upper() for heading in headings], *cells]:
        write_line("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def readable(data: bytes) -> str:
    """Bytes for human eyes: text where it is text, escapes where it is not."""
    text = data.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shortened(text: str) -> str:
    return text if len(text) <= CELL_CHARACTERS_MAX else text[: CELL_CHARACTERS_MAX - 3] + "..."


def named_bytes(name: str, data: bytes) -> dict[str, str]:
    """`{name: text}` for UTF-8, else `{name_b64: base64}`, as DESIGN fixes for JSON."""
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        from base64 import b64encode

        return {f"{name}_b64": b64encode(data).decode("ascii")}
