"""Names and texts as TOML writes them."""

from __future__ import annotations

import re

from authserver.declaring.places import Path
from authserver.engine.printable import made_visible


def name_of(path: Path) -> str:
    """A path as text, such as `clients.billing.scopes[1]`."""
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            name += f".{part_of_name(part)}" if name else part_of_name(part)
    return name


def part_of_name(part: str) -> str:
    """A part of a dotted key, in quotation marks if it needs them."""
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else text_of(part)


def text_of(text: str) -> str:
    """A text in quotation marks, with escapes for invisible characters."""
    return (
        f'"{made_visible(text.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34)), _escape)}"'
    )


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
