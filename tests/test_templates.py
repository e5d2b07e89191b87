"""Slips that no test of a page would find: read from the sources of the templates and the protocol code."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path

import jinja2
import pytest

PACKAGE = Path(__file__).parent.parent / "authserver"
TEMPLATES = sorted(PACKAGE.rglob("*.jinja2"))
# Where requests are read and answered; `testing` drives them from outside.
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "testing" not in path.parts)

_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_TAG = re.compile(r"""<[a-zA-Z](?:"[^"]*"|'[^']*'|[^<>"'])*>""")
_QUOTED = re.compile(r"""=\s*(?:"[^"]*"|'[^']*')""")
_HANDLER = re.compile(
    r"""\son[a-z]+\s*=|\sstyle\s*=|(?:href|src|action)\s*=\s*["']?\s*javascript:""", re.IGNORECASE
)
_SCRIPT = re.compile(r"<script\b([^>]*)>(.*?)</script>", re.DOTALL | re.IGNORECASE)


def source_of(template: Path) -> str:
    return _COMMENT.sub("", template.read_text(encoding="utf-8"))


def slips(source: str) -> list[str]:
    """What is wrong with a template, in words."""
    found = []
    if re.search(r"\|\s*(safe|xmlattr)\b|\bMarkup\b", source):
        found.append("a filter or type that switches escaping off")
    if re.search(r"\{%-?\s*autoescape\b", source):
        found.append("autoescape is set in a template")
    # An expression becomes one letter, so that its own quotes and signs do not look like markup.
    markup = _EXPRESSION.sub(lambda match: "x" if match[0].startswith("{{") else " ", source)
    if any("=" in _QUOTED.sub("", tag) for tag in _TAG.findall(markup)):
        found.append("an attribute without quotes")
    if _HANDLER.search(markup):
        found.append("script or style in an attribute")
    for attributes, body in _SCRIPT.findall(source):
        if body.strip() or "src=" not in attributes:
            found.append("a script in the page")
    if re.search(r"<style\b", markup, re.IGNORECASE):
        found.append("a style in the page")
    for match in re.finditer(r"<a\b[^>]*target=\"_blank\"[^>]*>", markup):
        if 'rel="noopener noreferrer nofollow"' not in match[0]:
            found.append("a link into a new tab without rel")
    for match in re.finditer(r"<form\b([^>]*)>(.*?)</form>", markup, re.DOTALL):
        # A form that leads to the client has no token of ours, which would be shown to it.
        leads_to_us = 'class="to-client"' not in match[1]
        if 'method="post"' in match[1] and leads_to_us and 'name="csrf_token"' not in match[2]:
            found.append("a form without its token")
    return found


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_no_slips(template: Path) -> None:
    """T096, T094, T092: no unquoted attribute, no `safe`, no `xmlattr`, no data in script, a token in every form."""
    assert slips(source_of(template)) == []


@pytest.mark.parametrize(
    "source",
    [
        "<p>{{ name|safe }}</p>",
        "<p>{{ name | safe }}</p>",
        "<p {{ attributes|xmlattr }}>",
        "<a href={{ url }}>x</a>",
        "<input type=text>",
        "<script>let name = '{{ name }}'</script>",
        '<script type="application/json">{{ data }}</script>',
        '<p onclick="x()">',
        '<p style="{{ colour }}">',
        '<a href="javascript:x()">',
        "{% autoescape false %}{{ name }}{% endautoescape %}",
        '<a href="{{ url }}" target="_blank">x</a>',
        '<form method="post" action="/x"><input name="y"></form>',
    ],
)
def test_the_lint_finds_each_slip(source: str) -> None:
    """T096: a check that cannot fail is worthless."""
    assert slips(source)


def test_all_templates_are_looked_at() -> None:
    """T096: pages of features too."""
    names = {path.name for path in TEMPLATES}
    assert {"base.jinja2", "consent.jinja2", "login.jinja2", "error.jinja2", "leave.jinja2"} <= names


def test_templates_escape_by_themselves(tmp_path: Path) -> None:
    """T094, T096: pyramid_jinja2 switches autoescape on, and nobody switches it off."""
    for path in SOURCES:
        assert "autoescape" not in path.read_text(encoding="utf-8"), path
    assert tuple(map(int, version("jinja2").split(".")[:3])) >= (3, 1, 6)
    assert jinja2.Environment(autoescape=True).from_string("{{ x }}").render(x="<") == "&lt;"


def merged_reads(source: str, *, names: Collection[str] = ("request", "self")) -> list[int]:
    """The lines where `request.params`, `.GET`, `.POST` and their like are read."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and node.attr
        in ("params", "GET", "POST", "str_params", "json_body", "cookies", "host_url", "url", "referer")
        and isinstance(node.value, ast.Name)
        and node.value.id in names
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_requests_are_read_through_one_door(path: Path) -> None:
    """T014, T012, T013, T138: WebOb merges channels, splits on `;` and trusts the Host header; `web.forms` does not."""
    # A feature is no request: what it has under such a name is a setting.
    names = ("request",) if "features" in path.parts else ("request", "self")
    assert merged_reads(path.read_text(encoding="utf-8"), names=names) == []


@pytest.mark.parametrize(
    "read", ["request.params['a']", "request.GET", "request.POST.getall('a')", "request.cookies"]
)
def test_the_lint_finds_each_read(read: str) -> None:
    """T014: a check that cannot fail is worthless."""
    assert merged_reads(f"def view(request):\n    return {read}\n") == [2]
