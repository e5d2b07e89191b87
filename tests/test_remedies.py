"""Whoever reads why something was refused also reads what would change it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from authserver.cli import main
from authserver.engine.clients.authentication import NOBODY_NAMED
from authserver.engine.clients.registration import INITIAL_ACCESS_TOKEN_REQUIRED, REGISTRATION_POLICY_UNKNOWN
from authserver.engine.clients.room import TOO_MANY
from authserver.engine.errors import OAuthError
from authserver.engine.people.joining import UNUSABLE
from authserver.engine.questions import ScopeQuestion
from authserver.engine.records import MADE_PUBLIC, InitialTokenState
from authserver.explaining.remedies import REMEDIES, WITHOUT_REMEDY, filled, remedy_of, words_of
from authserver.features.upstream.account import NOTICES
from authserver.hooks import deciding
from authserver.hookspecs import DECIDING
from authserver.plugins.loading import GROUP
from authserver.settings import Settings

PACKAGE = Path(__file__).parent.parent / "authserver"
SOURCES = [
    *PACKAGE.glob("engine/**/*.py"),
    *PACKAGE.glob("features/**/*.py"),
    *PACKAGE.glob("web/*.py"),
    *PACKAGE.glob("policies/*.py"),
]
# Reasons that stand nowhere as a text: HTTP errors by their title, the floor of `explain`, constants, why an initial
# access token is of no use, and those of plugins for an allow.
MADE = {
    "method-not-allowed",
    "request-entity-too-large",
    "core-floor",
    INITIAL_ACCESS_TOKEN_REQUIRED,
    REGISTRATION_POLICY_UNKNOWN,
    MADE_PUBLIC,
    NOBODY_NAMED,
    TOO_MANY,
    "admin-api",
    "client-assertion-verified",
    "identity-mapped",
    "link-before-restore",
    # Why a grant cannot be derived any more (`NotLive`).
    "parent-client-disabled",
    "parent-grant-expired",
    "parent-grant-unknown",
    "subject-token-ended",
    "link-expired",
    "link-groups-changed",
    "openid-sign-in-again",
    "openid-sign-in-first",
    "openid-sign-in-suffices",
    "sign-in-first",
    "sign-in-suffices",
    *(f"initial-access-token-{why}" for why in (*InitialTokenState, "restored") if why != "live"),
}


def texts(node: ast.expr) -> Iterator[str]:
    """Every text that an expression may come to; of a condition both."""
    match node:
        case ast.Constant(value=str(text)) if text:
            yield text
        case ast.IfExp(body=body, orelse=orelse):
            yield from texts(body)
            yield from texts(orelse)


def reasons_of(path: Path) -> Iterator[str]:
    """What a file gives as the reason of a refusal: `reason="…"`, `….reason = "…"`, `deny("…")`, `narrow("…", …)`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.keyword(arg="reason", value=value):
                yield from texts(value)
            case ast.Assign(targets=[ast.Attribute(attr="reason")], value=value):
                yield from texts(value)
            case ast.Assign(targets=[ast.Name(id="reason")], value=value):
                yield from texts(value)
            case ast.Call(func=ast.Name(id="deny" | "narrow"), args=[first, *_]):
                yield from texts(first)
            case ast.Return(value=ast.Tuple(elts=[_, second])):
                yield from texts(second)
            case ast.Assign(targets=[ast.Name(id="UNEXPECTED")], value=value):
                yield from texts(value)
            case ast.Call(func=ast.Name(id="Ruling"), args=[_, _, third, *_]):
                yield from texts(third)


def assertions() -> Iterator[str]:
    """Why an assertion of a client is not accepted: what is wrong with any assertion, and with one of a client."""
    files = [PACKAGE / "engine" / "tokens" / "assertions.py", PACKAGE / "features" / "private_key_jwt.py"]
    for node in [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]:
        match node:
            case ast.Call(func=ast.Name(id="BadAssertion"), args=[first]):
                yield from (f"client-{text}" for text in texts(first))


def of_providers() -> Iterator[str]:
    """Why somebody is not signed in through a provider: each is a text there, and those of its tokens as of assertions."""
    names = {"provider-attempt", "provider-logout", "provider-token"}
    for path in (PACKAGE / "features" / "upstream").glob("*.py"):
        if path.name != "__init__.py":
            found = re.findall(r'"((?:provider|identity)-[a-z-]+)"', path.read_text(encoding="utf-8"))
            yield from (reason for reason in found if reason not in {*names, *NOTICES})
    of_clients = {"client-assertion-lives-too-long", "client-assertion-jti-missing"}
    for node in ast.walk(ast.parse((PACKAGE / "engine" / "tokens" / "assertions.py").read_text())):
        match node:
            case ast.Call(func=ast.Name(id="BadAssertion"), args=[first]):
                for text in texts(first):
                    if f"client-{text}" not in of_clients:
                        yield text.replace("assertion", "provider-token")


def of_issuers() -> Iterator[str]:
    """Why an assertion of a trusted issuer is not accepted, and why nothing can be derived from it."""
    engine = PACKAGE / "engine"
    files = [
        engine / "tokens" / "assertions.py",
        engine / "grants" / "assertion.py",
        engine / "grants" / "deriving.py",
    ]
    for node in [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]:
        match node:
            case ast.Call(func=ast.Name(id="BadAssertion" | "NotLive"), args=[first]):
                yield from texts(first)


def failures() -> Iterator[str]:
    """Why the answer of a plugin is none (`plugins.asking` and `hooks`)."""
    files = [PACKAGE / "plugins" / "copying.py", PACKAGE / "plugins" / "asking.py", PACKAGE / "hooks.py"]
    for node in [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]:
        match node:
            case ast.FunctionDef(name="problem_with"):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Return) and inner.value is not None:
                        yield from texts(inner.value)
            case ast.Call(func=ast.Name(id="Answer"), args=[_, _, third, *_]):
                yield from texts(third)
            case ast.Call(func=ast.Name(id="_failed"), args=[_, second, *_]):
                yield from texts(second)
            case ast.Call(func=ast.Name(id="Unusable"), args=[_, second]):
                yield from texts(second)


def codes(error: type[OAuthError] = OAuthError) -> Iterator[str]:
    """An error without a reason has its code for one. Those that other tests make do not count."""
    for kind in error.__subclasses__():
        if kind.__module__.startswith("authserver."):
            yield kind.code
        yield from codes(kind)


def declared() -> dict[str, str]:
    """What the shipped plugins say of their own reasons, where they do."""
    kinds = [point.load() for point in entry_points(group=GROUP) if point.value.startswith("authserver.")]
    said = [kind.reasons for kind in kinds if isinstance(getattr(kind, "reasons", None), Mapping)]
    assert sum(map(len, said)) == len({reason for reasons in said for reason in reasons}), "said twice"
    return {reason: remedy for reasons in said for reason, remedy in reasons.items()}


DECLARED = declared()
ALL = [*REMEDIES.values(), *DECLARED.values(), *(hook.remedy for hook in DECIDING.values())]
REASONS = sorted(
    {
        *assertions(),
        *of_providers(),
        UNUSABLE,
        *of_issuers(),
        *failures(),
        *codes(),
        *(reason for path in SOURCES for reason in reasons_of(path)),
    }
)


def test_the_reasons_are_found() -> None:
    """One of each kind, so that the tests below mean something."""
    assert {
        "code-expired",  # a keyword
        "code-burnt",  # one half of a condition
        "method-not-registered",  # an assignment
        "nobody-answered",  # a ruling
        "plugin-raised",
        "wrong-value",
        "invalid_scope",
        "scope-not-registered",  # a shipped policy
        "form-token",  # a page
        "unexpected-error",
    } <= set(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_a_remedy_or_is_known_to_have_none(reason: str) -> None:
    assert [reason in table for table in (REMEDIES, WITHOUT_REMEDY, DECLARED)].count(True) == 1
    assert remedy_of(reason, DECLARED)


def test_no_remedy_is_left_over() -> None:
    assert {*REMEDIES, *WITHOUT_REMEDY, *DECLARED} <= {*REASONS, *MADE}


def test_a_plugin_cannot_replace_the_remedy_of_a_reason_of_the_core() -> None:
    assert remedy_of("plugin-raised", {"plugin-raised": "nothing"}) == REMEDIES["plugin-raised"]
    assert remedy_of("code-unknown", {"code-unknown": "guess another"}) == remedy_of("code-unknown")
    assert remedy_of("two-methods", {"two-methods": "take one"}) == remedy_of("two-methods")


def test_a_reason_that_a_plugin_declares_without_a_remedy_says_so() -> None:
    assert remedy_of("of-a-plugin", {"of-a-plugin": ""}) == remedy_of("two-methods")
    assert remedy_of("of-a-plugin", {}) == ""


def test_every_deciding_hook_says_what_to_do_about_silence() -> None:
    for hook in DECIDING.values():
        assert hook.silence and bool(hook.remedy) is hook.silence_refuses, hook.name


def test_a_refusal_of_silence_without_a_remedy_is_not_declared() -> None:
    with pytest.raises(TypeError, match="scope_decision: silence refuses"):
        deciding(ScopeQuestion, silence="refused")


EDIT_OPTIONS = {"--jwks", "--auth-method", "--add-redirect-uri", "--add-scope", "--add-grant-type"}


def test_the_commands_that_remedies_name_exist() -> None:
    """With every word of them; what the words in braces stand for is known."""
    named = 0
    for text in ALL:
        for command in re.findall("`authserver ([^`]+)`", filled(text)):
            words = command.split()
            named += 1
            assert (
                words[:2] != ["client", "edit"]
                or {word for word in words if word.startswith("--")} <= EDIT_OPTIONS
            ), command
            if words[:2] != ["client", "edit"]:
                found: click.Command | None = main
                while isinstance(found, click.Group) and words:
                    found = found.get_command(click.Context(found), words.pop(0))
                assert found is not None, command
                options = {option for parameter in found.params for option in parameter.opts}
                assert {word for word in words if word.startswith("-")} <= options, command
    assert named > 20


def test_no_remedy_registers_anew_what_exists() -> None:
    """`client add` helps only where there is no client, or none that can be used."""
    adding = {reason for reason, remedy in REMEDIES.items() if "client add" in remedy}
    assert adding == {"client-unknown", "client-disabled", "no-scope"}
    assert not any("client add" in hook.remedy for hook in DECIDING.values())


def test_what_a_remedy_needs_is_quoted_for_the_shell() -> None:
    words = words_of({"client_id": "a b; rm", "method": "client_secret_post"}, missing_scopes=("x", "y'z"))
    assert words["client_id"] == "'a b; rm'"
    assert words["auth_method"] == "client_secret_post"
    assert words["add_scopes"] == "--add-scope x --add-scope 'y'\"'\"'z'"
    assert filled("{client_id} {grant_type} {unknown}", words) == "'a b; rm' TYPE {unknown}"


def test_the_settings_that_remedies_name_exist() -> None:
    known = {f"authserver.{name}" for name in Settings.__dataclass_fields__} | {"authserver.plugin"}
    for text in ALL:
        for word in text.replace("`", " ").split():
            if word.startswith("authserver."):
                assert ".".join(word.rstrip(".,;:").split(".")[:2]) in known, word
