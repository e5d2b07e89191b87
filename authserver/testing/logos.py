"""Small logos for tests."""

from __future__ import annotations

import struct
import zlib

SVG_LOGO = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    b'<style>path { fill: #0645ad }</style><path d="M0 0h16v16H0z"/></svg>'
)


def png(width: int = 16, height: int = 16, *chunks: tuple[bytes, bytes]) -> bytes:
    """A grey PNG file of this size, with further chunks before its picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80" * min(width, 64)) * min(height, 64))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), *chunks, (b"IDAT", rows), (b"IEND", b""))
    )


PNG_LOGO = png()
