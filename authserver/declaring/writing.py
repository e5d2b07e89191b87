"""Writes forms as TOML: in a stable order, with a line for each value of a list, and with invisible characters escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

from authserver.declaring.names import part_of_name, text_of
from authserver.declaring.places import Path
from authserver.engine.declarations.forms import Forms, Reference
from authserver.engine.printable import made_visible


def toml_of(forms: Forms, remarks: Mapping[Path, Sequence[str]]) -> str:
    """The forms as a file; values that are the default are left out, and remarks become comments."""
    return "\n".join(
        line for item in fields(Forms) for line in kind_of(item.name, getattr(forms, item.name), remarks)
    )


def kind_of(kind: str, entries: Mapping[str, Any], remarks: Mapping[Path, Sequence[str]]) -> Iterator[str]:
    """The lines of the entries of one kind."""
    if entries and not is_dataclass(next(iter(entries.values()))):
        yield f"[{kind}]"
        yield from (f"{part_of_name(name)} = {_value(value)}" for name, value in entries.items())
        yield ""
        return
    for name, entry in entries.items():
        yield f"[{kind}.{part_of_name(name)}]"
        yield from (f"# {made_visible(remark)}" for remark in remarks.get((kind, name), ()))
        tables: dict[str, Mapping[str, Any]] = {}
        for item in fields(entry):
            value = getattr(entry, item.name)
            if isinstance(value, dict):
                tables[item.name] = value
            elif value != item.default or item.default is MISSING:
                yield f"{item.name} = {_value(value)}"
        for table, members in tables.items():
            if members:
                yield f"[{kind}.{part_of_name(name)}.{table}]"
                yield from (f"{part_of_name(member)} = {_value(value)}" for member, value in members.items())
        yield ""


def _value(value: Any, *, inline: bool = False) -> str:
    """A value; inside an inline table it is in one line, as TOML 1.0 requires."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Reference():
            return _table(value.as_written())
        case dict():
            return _table(value)
        case list() | tuple():
            items = [_value(item, inline=True) for item in value]
            if len(items) > 1 and not inline and all(isinstance(item, str) for item in value):
                return "[\n" + "".join(f"    {item},\n" for item in items) + "]"
            return f"[{', '.join(items)}]"
        case _:
            return text_of(str(value))


def _table(value: Mapping[str, Any]) -> str:
    members = (f"{part_of_name(name)} = {_value(item, inline=True)}" for name, item in value.items())
    return "{ " + ", ".join(members) + " }" if value else "{}"
