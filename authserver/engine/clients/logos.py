"""Logos that operators give to clients: read once, stored here, and served by this server alone.

A page shows a logo as an image, in which browsers run no script and load nothing. A file with scripts or references is
refused before it is stored, so that opening the file itself does no harm either.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from xml.parsers import expat

from authserver.engine.errors import InvalidClientMetadata
from authserver.engine.records import Logo
from authserver.limits import MAXIMUM_LOGO, MAXIMUM_LOGO_SIDE

SVG, PNG = "image/svg+xml", "image/png"

_PNG_BEGINS = b"\x89PNG\r\n\x1a\n"
_SVG_NAMESPACE = "http://www.w3.org/2000/svg"
_REFUSED_ELEMENTS = frozenset({"script", "foreignobject", "iframe", "embed", "object", "audio", "video"})
_XHTML_NAMESPACE = "http://www.w3.org/1999/xhtml"
_HARMLESS = r"\s*(#|data:image/(png|jpeg|gif|webp)[;,]|$)"
_HARMLESS_REFERENCE = re.compile(_HARMLESS, re.IGNORECASE)
_STYLE_REFERENCE = re.compile(rf"@import|url\((?!\s*[\"']?{_HARMLESS})", re.IGNORECASE)


def read_logo(body: bytes) -> Logo:
    """The logo in the file with this content.

    Raises:
        InvalidClientMetadata: it is no SVG or PNG file, too large, or an SVG file with more than a picture in it.
    """
    if len(body) > MAXIMUM_LOGO:
        raise InvalidClientMetadata(f"logo: the file has more than {MAXIMUM_LOGO // 1024} kB.")
    is_png = body.startswith(_PNG_BEGINS)
    problem = _png_problem(body) if is_png else _svg_problem(body)
    if problem:
        raise InvalidClientMetadata(f"logo: {problem}")
    digest = hashlib.sha256(body).hexdigest()[:32]
    return Logo(digest=digest, media_type=PNG if is_png else SVG, body=body)


def _png_problem(body: bytes) -> str | None:
    try:
        chunks = list(_chunks(body[len(_PNG_BEGINS) :]))
    except (struct.error, ValueError):
        return "the PNG file is damaged."
    if not chunks or chunks[0][0] != b"IHDR" or chunks[-1][0] != b"IEND" or len(chunks[0][1]) != 13:
        return "the PNG file is damaged."
    if not any(kind == b"IDAT" for kind, _ in chunks):
        return "the PNG file is damaged."
    width, height = struct.unpack(">II", chunks[0][1][:8])
    if not (1 <= width <= MAXIMUM_LOGO_SIDE and 1 <= height <= MAXIMUM_LOGO_SIDE):
        return f"the picture must have 1 to {MAXIMUM_LOGO_SIDE} pixels in each direction."
    if any(kind == b"acTL" for kind, _ in chunks):
        return "the picture must not be animated."
    return None


def _chunks(rest: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG file (PNG, 5.3). Raises struct.error or ValueError if it is not made of chunks."""
    while rest:
        length, kind = struct.unpack(">I4s", rest[:8])
        data, (checksum,) = rest[8 : 8 + length], struct.unpack(">I", rest[8 + length : 12 + length])
        if zlib.crc32(kind + data) != checksum:
            raise ValueError("wrong checksum")
        yield kind, data
        rest = rest[12 + length :]


_REFERS = "the SVG file must not refer to other files: put everything into it."


class _Refused(Exception):
    """Why this SVG file is refused."""


def _svg_problem(body: bytes) -> str | None:
    parser, elements = expat.ParserCreate(namespace_separator=" "), _Elements()
    parser.StartElementHandler = elements.begin
    parser.CharacterDataHandler = elements.read
    parser.buffer_text = True
    parser.EntityDeclHandler = parser.SkippedEntityHandler = _refuse_entity
    parser.ProcessingInstructionHandler = _refuse_instruction
    try:
        parser.Parse(body, True)
    except _Refused as refused:
        return str(refused)
    except (expat.ExpatError, LookupError, ValueError):
        return "it must be an SVG or PNG file."
    return None


class _Elements:
    """Judges each element of an SVG file as it begins."""

    def __init__(self) -> None:
        self.is_root = True
        self.is_style = False

    def begin(self, element: str, attributes: dict[str, str]) -> None:
        if self.is_root and element != f"{_SVG_NAMESPACE} svg":
            raise _Refused("it must be an SVG or PNG file.")
        self.is_root = False
        namespace, _, name = element.rpartition(" ")
        self.is_style = name == "style"
        # An element of HTML is no picture, and may load another page: meta.
        if name.lower() in _REFUSED_ELEMENTS or namespace == _XHTML_NAMESPACE:
            raise _Refused(f"the SVG file must not have the element {name}.")
        for attribute, value in attributes.items():
            local = attribute.rpartition(" ")[2].lower()
            if local.startswith("on"):
                raise _Refused("the SVG file must not have scripts in attributes.")
            is_reference = local in ("href", "src") and not _HARMLESS_REFERENCE.match(value)
            if is_reference or _STYLE_REFERENCE.search(value):
                raise _Refused(_REFERS)

    def read(self, text: str) -> None:
        """Judges the text after an element has begun."""
        if self.is_style and _STYLE_REFERENCE.search(text):
            raise _Refused(_REFERS)


def _refuse_entity(*found: object) -> None:
    raise _Refused("the SVG file must not have entities of its own.")


def _refuse_instruction(target: str, data: str) -> None:
    raise _Refused("the SVG file must not have processing instructions, such as xml-stylesheet.")
