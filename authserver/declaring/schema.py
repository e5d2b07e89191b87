"""The JSON Schema of files of declarations (draft 2020-12), made from the forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from authserver.engine.declarations.forms import Forms


def schema() -> Mapping[str, Any]:
    """The schema, for editors that complete and check TOML."""
    (reference,), definitions = msgspec.json.schema_components([Forms], ref_template="#/$defs/{name}")
    for definition in definitions.values():
        if "properties" in definition:
            definition["additionalProperties"] = False
    definitions["Reference"] |= {"minProperties": 1, "maxProperties": 1}
    top = definitions.pop(Forms.__name__)
    assert reference == {"$ref": f"#/$defs/{Forms.__name__}"}
    made = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **top,
        "title": "Declarations of authserver",
        "$defs": definitions,
    }
    read: Mapping[str, Any] = msgspec.json.decode(msgspec.json.encode(made))
    return read
