"""Which files can be the logo of a client."""

from __future__ import annotations

import pytest

from authserver.engine.clients.logos import read_logo
from authserver.engine.errors import InvalidClientMetadata
from authserver.limits import MAXIMUM_LOGO, MAXIMUM_LOGO_SIDE
from authserver.testing.logos import PNG_LOGO, SVG_LOGO, png

SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{}</svg>'


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (SVG_LOGO, "image/svg+xml"),
        (b"\xef\xbb\xbf<?xml version='1.0' encoding='UTF-8'?>\n<!-- by hand -->" + SVG_LOGO, "image/svg+xml"),
        (SVG.format("é").encode("utf-16"), "image/svg+xml"),
        # As drawing programs write it.
        (
            b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">'
            + SVG_LOGO,
            "image/svg+xml",
        ),
        (SVG.format('<g id="a"/><use xlink:href="#a"/>').encode(), "image/svg+xml"),
        (SVG.format('<image href="data:image/png;base64,AAAA"/>').encode(), "image/svg+xml"),
        (SVG.format("<style>g { fill: url( '#a' ) }</style><g fill='url(#a)'/>").encode(), "image/svg+xml"),
        (SVG.format("<text>@import url(&lt;a&gt;)</text>").encode(), "image/svg+xml"),
        (PNG_LOGO, "image/png"),
        (png(MAXIMUM_LOGO_SIDE, 1), "image/png"),
        (png(16, 16, (b"tEXt", b"Comment\0by hand")), "image/png"),
    ],
)
def test_a_picture_is_taken_as_it_is(body: bytes, media_type: str) -> None:
    logo = read_logo(body)
    assert (logo.media_type, logo.body) == (media_type, body)
    assert read_logo(body).digest == logo.digest
    assert len(logo.digest) == 32


def test_another_file_has_another_digest() -> None:
    assert len({read_logo(body).digest for body in (SVG_LOGO, SVG_LOGO + b"\n", PNG_LOGO)}) == 3


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "must be an SVG or PNG file"),
        (b"GIF89a", "must be an SVG or PNG file"),
        (b"<html><body>x</body></html>", "must be an SVG or PNG file"),
        (b"<svg/>", "must be an SVG or PNG file"),
        (SVG_LOGO[:-3], "must be an SVG or PNG file"),
        (b"<?xml version='1.0' encoding='no-such'?>" + SVG_LOGO, "must be an SVG or PNG file"),
        (SVG_LOGO + b"\0", "must be an SVG or PNG file"),
        (SVG_LOGO + b" " * MAXIMUM_LOGO, "more than 64 kB"),
        (b'<!DOCTYPE svg [<!ENTITY a "aaaa">]>' + SVG_LOGO, "entities"),
        (b'<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + SVG_LOGO, "entities"),
        (b'<?xml-stylesheet href="https://evil.example/x.css"?>' + SVG_LOGO, "processing instructions"),
        (SVG.format("<script>alert(1)</script>").encode(), "must not have the element script"),
        (SVG.format('<x:script xmlns:x="http://www.w3.org/1999/xhtml"/>').encode(), "element script"),
        (SVG.format("<foreignObject/>").encode(), "element foreignObject"),
        (SVG.format('<g onload="alert(1)"/>').encode(), "scripts in attributes"),
        (SVG.format('<g OnClick="alert(1)"/>').encode(), "scripts in attributes"),
        (SVG.format('<use xlink:href="https://evil.example/x.svg#a"/>').encode(), "other files"),
        (SVG.format('<a href="javascript:alert(1)"/>').encode(), "other files"),
        (SVG.format('<image href="data:image/svg+xml,x"/>').encode(), "other files"),
        (SVG.format('<image href="//evil.example/x.png"/>').encode(), "other files"),
        (SVG.format("<style>@import 'https://evil.example/x.css';</style>").encode(), "other files"),
        (SVG.format("<style>b { fill: URL( 'https://evil.example' ) }</style>").encode(), "other files"),
        (SVG.format('<g style="fill: url(//evil.example/x)"/>').encode(), "other files"),
        (SVG.format('<g fill="url(https://evil.example/x#a)"/>').encode(), "other files"),
        (
            SVG.format(
                '<x:meta xmlns:x="http://www.w3.org/1999/xhtml" http-equiv="refresh" content="0;url=//evil.example"/>'
            ).encode(),
            "must not have the element meta",
        ),
        (b'<!DOCTYPE svg SYSTEM "svg11.dtd">' + SVG.format("&own;").encode(), "entities"),
        (PNG_LOGO[:-1], "damaged"),
        (PNG_LOGO[:8], "damaged"),
        (PNG_LOGO[:-12], "damaged"),
        # Whole chunks and no picture in them.
        (PNG_LOGO[:33] + PNG_LOGO[-12:], "damaged"),
        (PNG_LOGO.replace(b"IHDR", b"IHDX"), "damaged"),
        (PNG_LOGO + b"<script>", "damaged"),
        (PNG_LOGO[:8] + b"\xff\xff\xff\xffIHDR", "damaged"),
        (png(MAXIMUM_LOGO_SIDE + 1, 1), "1 to 1024 pixels"),
        (png(1, 100_000), "1 to 1024 pixels"),
        (png(0, 1), "1 to 1024 pixels"),
        (png(16, 16, (b"acTL", b"\0" * 8)), "animated"),
    ],
)
def test_what_is_no_harmless_picture_is_refused(body: bytes, problem: str) -> None:
    with pytest.raises(InvalidClientMetadata, match=problem):
        read_logo(body)
