"""Every page for everybody: any width, zoom, colour scheme and accent; by rule (axe-core) and by what rules miss."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from authserver.testing.server import Server
from tests.browser.steps import PAGES

# WCAG 2.2 at level AA, and what axe-core counts as good practice.
AXE = {
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
}
ACCENTS = ("#35589a", "#ffd400", "#101010", "#f5f5f5", "#c2185b", "#00897b")

# How much each control's edge differs from what is around it, and text from what is under it (WCAG 2.2, 1.4.3, 1.4.11).
CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const channels = (...colors) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = (...colors) => {
    const [r, g, b] = [...channels(...colors)].slice(0, 3).map((value) => value / 255)
      .map((share) => (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const ground = (element) => {
    const under = [];
    for (let at = element; at; at = at.parentElement) under.unshift(getComputedStyle(at).backgroundColor);
    return under;
  };
  const found = [];
  for (const element of document.querySelectorAll(".button:not(:disabled), .field input:not(:disabled)")) {
    const style = getComputedStyle(element);
    const name = element.textContent.trim() || element.id;
    found.push([`text of ${name}`, contrast(luminance(...ground(element), style.color), luminance(...ground(element))), 4.5]);
    const around = ground(element.parentElement);
    found.push([`edge of ${name}`, contrast(luminance(...around, style.borderTopColor), luminance(...around)), 3]);
  }
  for (const element of document.querySelectorAll("main h1, main h2, main p, main li, main dd, .brand, .account a")) {
    const style = getComputedStyle(element);
    if (!element.textContent.trim() || !element.checkVisibility()) continue;
    found.push([`text of ${element.textContent.trim().slice(0, 30)}`,
      contrast(luminance(...ground(element), style.color), luminance(...ground(element))), 4.5]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def themes(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What theme.css sets, for each accent that an operator might choose."""
    themes = {}
    # A copy: a server that starts writes its keys, and all other tests begin with the file itself.
    copy = shutil.copy(migrated_sqlite_file, tmp_path_factory.mktemp("themes") / "authserver.db")
    for accent in ACCENTS:
        server = Server(f"sqlite:///{copy}", {"authserver.accent_color": accent})
        themes[accent] = dict(re.findall(r"(--[a-z-]+): ([^;]+);", server.http.get("/static/theme.css").text))
        server.close()
    return themes


def assert_for_everybody(page: Page, where: str) -> None:
    """WCAG 2.2 AA by rule in light and dark; 320 px, 1440 px and 200 % zoom without sideways scrolling."""
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        results = Axe().run(page, options=AXE)
        assert results.violations_count == 0, f"{where}, {scheme}: {results.generate_report()}"
        assert_contrast(page, f"{where}, {scheme}")
    for width in (320, 640, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        assert_fits(page, f"{where}, {width} px")


def assert_contrast(page: Page, where: str) -> None:
    """Text and controls stand out."""
    found = page.evaluate(CONTRASTS)
    assert found
    assert [(where, name, round(ratio, 2)) for name, ratio, least in found if ratio < least] == []


def assert_fits(page: Page, where: str) -> None:
    """Nobody has to scroll sideways, and nothing is cut off (WCAG 2.2, 1.4.10)."""
    too_wide = page.evaluate(
        "() => [...document.querySelectorAll('body *')].filter((element) => element.checkVisibility()"
        " && !element.closest('.skip') && element.getBoundingClientRect().right > innerWidth + 1)"
        ".map((element) => element.outerHTML.slice(0, 80))"
    )
    assert (where, too_wide) == (where, [])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), where


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_for_everybody(page: Page, server: Server, watch, name: str) -> None:
    """Rules of WCAG 2.2 AA in light, dark and forced colours; 320 px, 200 % zoom and text without sideways scrolling."""
    watch.allow("status of 40[034]")
    PAGES[name](page, server)
    expect(page.locator("html")).to_have_attribute("lang", "en")
    assert page.title().endswith(" · authserver")
    for role, count in (("main", 1), ("banner", 1)):
        expect(page.get_by_role(role)).to_have_count(count)  # both are roles
    expect(page.get_by_role("heading", level=1)).to_have_count(1)

    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        results = Axe().run(page, options=AXE)
        assert results.violations_count == 0, f"{scheme}: {results.generate_report()}"
        assert_contrast(page, scheme)
    page.emulate_media(forced_colors="active")
    assert_contrast(page, "forced colours")
    page.emulate_media(forced_colors="none")

    page.set_viewport_size({"width": 320, "height": 640})
    assert_fits(page, "320 px")
    small = page.evaluate(
        "() => [...document.querySelectorAll('.button, button, input, summary, .rows a, .brand, .account a, .summary a, .outward a')]"
        ".filter((element) => element.checkVisibility()).map((element) => [element.closest('label') ?? element])"
        ".map(([element]) => [element.textContent.trim() || element.id, element.getBoundingClientRect().height])"
        ".filter(([, height]) => height < 44)"
    )
    assert small == []
    page.set_viewport_size({"width": 640, "height": 400})  # 1280 px at 200 %
    assert_fits(page, "zoomed")
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert_fits(page, "large text")


@pytest.mark.parametrize(
    ("name", "way_on"),
    [
        ("consent-of-another", "Allow"),
        ("onward", "Go on"),
        ("onward-app", "Go on"),
        ("expired", "Start again"),
        ("answered", "Go to the application"),
        ("signed-out-before", "Sign in again"),
    ],
)
def test_every_page_on_the_way_needs_no_script(
    open_page: Callable[..., Page], server: Server, watch, name: str, way_on: str
) -> None:
    """The browser comes to it and sees how to go on, with JavaScript switched off."""
    watch.allow("status of 40[03]")
    page = open_page(java_script_enabled=False)
    PAGES[name](page, server)
    expect(page.locator("main").locator("a, button").filter(has_text=way_on)).to_be_visible()


def test_what_is_wrong_would_be_found(page: Page, server: Server) -> None:
    """The checks above do find a missing label, faint text and what sticks out."""
    PAGES["login"](page, server)
    assert_contrast(page, "as it is")
    page.evaluate("document.querySelector('label').remove()")
    assert "label" in Axe().run(page, options=AXE).generate_snapshot()
    page.evaluate("document.querySelector('h1').style.color = '#bbb'")
    with pytest.raises(AssertionError, match="text of Sign in"):
        assert_contrast(page, "faint")
    page.evaluate("document.querySelector('h1').style.width = '2000px'")
    with pytest.raises(AssertionError, match="<h1"):
        assert_fits(page, "wide")


@pytest.mark.parametrize("name", ["login-failed", "consent-unverified", "sign-out", "playground"])
def test_no_accent_makes_anything_unreadable(
    page: Page, server: Server, themes: dict[str, dict[str, str]], watch, name: str
) -> None:
    """Whatever `authserver.accent_color` says, text and controls keep their contrast, in light and dark."""
    watch.allow("status of 400")
    PAGES[name](page, server)
    for accent, theme in themes.items():
        assert theme["--accent"] == accent
        page.evaluate(
            "theme => { for (const [name, value] of Object.entries(theme))"
            " document.documentElement.style.setProperty(name, value); }",
            theme,
        )
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            assert_contrast(page, f"{accent}, {scheme}")


def test_dark_is_dark(page: Page, server: Server) -> None:
    """The colour scheme of the system is followed."""
    PAGES["consent"](page, server)
    shades = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # both are schemes
        shades.append(page.locator(".card").evaluate("element => getComputedStyle(element).backgroundColor"))
    assert shades == ["rgb(255, 255, 255)", "rgb(26, 32, 41)"]


def test_motion_stops_for_those_who_ask(page: Page, server: Server) -> None:
    """prefers-reduced-motion (WCAG 2.2, 2.3.3)."""
    PAGES["login"](page, server)
    moving = "element => getComputedStyle(element).transitionProperty"
    assert page.get_by_role("button", name="Sign in").evaluate(moving) == "box-shadow"
    page.emulate_media(reduced_motion="reduce")
    assert page.get_by_role("button", name="Sign in").evaluate(moving) == "none"


def test_the_focus_follows_the_reading_order(page: Page, server: Server, watch) -> None:
    """WCAG 2.2, 2.4.3: from top to bottom, on the page with the most to reach."""
    watch.allow("status of 400")
    PAGES["consent-failed"](page, server)
    tops = []
    page.locator("h1").click()
    page.evaluate("document.activeElement.blur()")
    page.get_by_role("alert").focus()
    for _step in range(8):
        page.keyboard.press("Tab")
        tops.append(
            page.locator(":focus").evaluate(
                "element => Math.round(element.getBoundingClientRect().top + scrollY)"
            )
        )
    assert all(before <= after for before, after in pairwise(tops)), tops


def test_many_scopes_are_folded_and_the_answers_stay_in_sight(page: Page, server: Server) -> None:
    """WCAG 2.2, 2.4.11, E-09: whatever has the focus is not covered by Deny and Allow, and each fold says what is in it."""
    PAGES["consent-many"](page, server)
    boxes, bar = page.locator("input[name=scope]"), page.locator("#answers")
    assert (boxes.count(), boxes.filter(visible=True).count()) == (17, 7)
    fold = page.locator("details").first
    for name, ticks in (("all", [True] * 5), ("not all", [False] + [True] * 4), ("none", [False] * 5)):
        for box, tick in zip(fold.locator("input").all(), ticks, strict=True):
            box.evaluate("(box, tick) => { box.checked = tick; }", tick)
        expect(fold.locator("summary")).to_have_text(
            re.compile(rf"Calendars.*\n5 permissions, {name} ticked"), use_inner_text=True
        )
    for fold in page.locator("details").all():
        fold.locator("summary").click()
    for width, height in ((1280, 800), (640, 400), (320, 640)):
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("scrollTo(0, 0)")
        expect(page.get_by_role("button", name="Allow")).to_be_in_viewport(ratio=1)
        page.locator(".skip").focus()
        steps = 0
        while not bar.evaluate("bar => bar.contains(document.activeElement)"):
            page.keyboard.press("Tab")
            covered = bar.evaluate(
                "bar => !bar.contains(document.activeElement)"
                " && document.activeElement.getBoundingClientRect().bottom > bar.getBoundingClientRect().top"
            )
            assert not covered, (width, page.locator(":focus").evaluate("element => element.outerHTML"))
            steps += 1
        assert steps > 20
    page.set_viewport_size({"width": 320, "height": 256})  # 1280 px at 400 %: no room for a bar
    assert bar.evaluate("bar => getComputedStyle(bar).position") == "static"
