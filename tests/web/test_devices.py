"""What a User-Agent is called on the page of sessions."""

from __future__ import annotations

import time

import pytest

from authserver.limits import MAXIMUM_USER_AGENT
from authserver.web.devices import Device, device_of

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("user_agent", "program", "system"),
    [
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/126.0.0.0 Safari/537.36",
            "Chrome",
            "Windows",
        ),
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0",
            "Edge",
            "Windows",
        ),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0", "Firefox", "Linux"),
        (
            f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) {WEBKIT} Version/17.5 Mobile/15E148 Safari/604.1",
            "Mobile Safari",
            "iOS",
        ),
        ("curl/8.5.0", "curl", ""),
        ("", "", ""),
        ("<script>alert(1)</script>", "", ""),
    ],
    ids=["chrome", "edge", "firefox", "iphone", "curl", "nothing", "nonsense"],
)
def test_a_browser_is_called_what_people_call_it(user_agent: str, program: str, system: str) -> None:
    """E-17: enough to tell the phone from the desk; "" rather than a guess."""
    assert device_of(user_agent) == Device(program=program, system=system)


@pytest.mark.parametrize(
    "piece", ["qutebrowser", "SkipStone", "UP", "U; ", "Brave(" + " " * 250, "Version/1 "]
)
def test_no_text_takes_long_to_read(piece: str) -> None:
    """T104: what makes the patterns go back and forth most, as long as it is ever kept."""
    text = (piece * MAXIMUM_USER_AGENT)[:MAXIMUM_USER_AGENT]
    device_of(text)
    start = time.process_time()
    device_of(text)
    assert time.process_time() - start < 0.5
