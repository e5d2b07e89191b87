"""Whatever is declared: applied twice it changes nothing, and what is exported is what was declared (R-17)."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from authserver.declaring.names import text_of
from authserver.declaring.reading import read_files
from authserver.declaring.schema import schema
from authserver.declaring.writing import toml_of
from authserver.engine.clients.initial_tokens import new_text
from authserver.engine.declarations.apply import apply, finish
from authserver.engine.declarations.export import export
from authserver.engine.declarations.forms import (
    DeclaredClient,
    DeclaredInitialToken,
    DeclaredResource,
    Forms,
    Reference,
)
from authserver.engine.declarations.plan import Declared, Manner
from authserver.engine.declarations.planning import default_grant_types, plan_of
from authserver.settings import AccessTokenFormat, Secret
from authserver.testing.rules import Rules
from authserver.testing.server import SETTINGS

CHECKOUT = Path(__file__).parents[2]
SCOPES = ("profile", "files.read", "files.write")
URIS = ("https://a.example/cb", "http://127.0.0.1/cb", "https://b.example/cb?x=%20", "com.example.app:/cb")
WITH_KEYS = ("client_secret_basic", "client_secret_post")
# Texts that are seen, with what TOML and terminals treat in their own way.
NAMES = st.one_of(
    st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=12),
    st.sampled_from(['A "B" \\ C', "Ünï'''", '"""', "a\\u0041 # [x]", "👩‍🚀 😀", "日本 語"]),
)


def some(values: tuple[str, ...], least: int = 0) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), unique=True, min_size=least).map(tuple)


@st.composite
def clients(draw: st.DrawFn) -> DeclaredClient:
    redirect_uris = draw(some(URIS[:3]))
    method = draw(st.sampled_from((*WITH_KEYS, "none") if redirect_uris else WITH_KEYS))
    grant_types = draw(
        st.sampled_from([("authorization_code",), ("authorization_code", "refresh_token"), None])
        if redirect_uris
        else st.sampled_from([("client_credentials",), None])
    )
    links = st.sampled_from(["", "https://example.com/a"])
    return DeclaredClient(
        client_name=draw(NAMES),
        redirect_uris=redirect_uris,
        grant_types=grant_types,
        scopes=draw(some(SCOPES, least=1)),
        token_endpoint_auth_method=method,
        secret=draw(st.sampled_from([None, Reference(env="A"), Reference(file="b")]))
        if method != "none"
        else None,
        client_uri=draw(links),
        tos_uri=draw(links),
        contacts=draw(some(("ann@example.com", "bob"))),
        software_id=draw(st.sampled_from(["", "4NRB1-0XZABZI9E6"])),
        first_party=draw(st.booleans()),
        rotates_refresh_tokens=method == "none" or draw(st.booleans()),
    )


RESOURCES = st.builds(
    DeclaredResource,
    name=NAMES.map(str.strip),
    scopes=st.none() | some(SCOPES),
    token_format=st.none() | st.sampled_from(AccessTokenFormat),
    token_lifetime=st.none() | st.integers(10, 86400),
)
TOKENS = st.builds(
    DeclaredInitialToken,
    policy=st.just("partners"),
    token=st.builds(Reference, env=st.from_regex(r"[A-Z_]{1,9}", fullmatch=True)),
    expires_at=st.integers(0, 10**8).map(
        lambda seconds: datetime(2090, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    ),
    uses=st.none() | st.integers(1, 9),
    note=st.just("") | NAMES,
)
IDS = st.from_regex(r"[a-z!-~][!-~]{0,9}", fullmatch=True)
FORMS = st.builds(
    Forms,
    clients=st.dictionaries(IDS, clients(), max_size=4),
    resources=st.dictionaries(
        st.sampled_from(["https://r.example", "https://r.example/b", "urn:a:é", "urn:b"]),
        RESOURCES,
        max_size=3,
    ),
    initial_tokens=st.dictionaries(NAMES, TOKENS, max_size=2),
)


def usual(client: DeclaredClient) -> DeclaredClient:
    """The same without what is the default anyway."""
    is_usual = client.grant_types == default_grant_types(client.redirect_uris)
    return replace(client, grant_types=None if is_usual else client.grant_types)


def a_server() -> tuple[Rules, dict[str, object]]:
    plugins = SETTINGS["authserver.plugins"].replace("registration_open", "registration_token")
    rules = Rules(
        {
            "authserver.plugins": plugins,
            "authserver.plugin.registration_open.scopes": None,
            "authserver.plugin.registration_token.policies": "partners = clients 3",
        }
    )
    policies: Any = rules.parts.policies
    return rules, {name: policies.plugin(name) for name in policies.names}


def with_secrets(forms: Forms) -> Declared:
    """The forms with a text at each reference."""
    secrets = {
        ("clients", name, "secret"): Secret(f"the secret of {name} is long enough")
        for name, form in forms.clients.items()
        if form.secret
    } | {("initial_tokens", name, "token"): Secret(new_text()) for name in forms.initial_tokens}
    return Declared(forms=forms, secrets=secrets)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(first=FORMS, second=FORMS, prune=st.booleans())
def test_twice_changes_nothing_and_what_is_exported_is_what_was_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Forms, second: Forms, prune: bool
) -> None:
    rules, plugins = a_server()
    manner = Manner(prune=prune)
    for forms in (first, second):
        what = with_secrets(forms)
        with rules.begin() as engine:
            plan = plan_of(engine, what, manner, plugins=plugins)
        # A client that went, or one with an id that nobody may have.
        assume(not plan.problems)
        with rules.begin() as engine:
            apply(engine, what, manner, plan, plugins=plugins)
        assert not any(finish(rules.begin, plan))
        with rules.begin() as engine:
            again = plan_of(engine, what, manner, plugins=plugins)
        assert again.is_settled, again
        before = rules.stores.tables.copy()
        with rules.begin() as engine:
            apply(engine, what, manner, again, plugins=plugins)
        assert rules.stores.tables == before
    with rules.begin() as engine:
        exported = export(engine, kinds=("clients", "resources", "initial_tokens"), plugins=plugins)
    expected = (
        second
        if prune
        else Forms(
            clients={**first.clients, **second.clients},
            resources={**first.resources, **second.resources},
            initial_tokens={**first.initial_tokens, **second.initial_tokens},
        )
    )
    if not prune:
        # What is spelt otherwise in the second is one thing.
        assume(len(exported.forms.initial_tokens) == len(expected.initial_tokens))
    assert exported.forms.clients == {name: usual(form) for name, form in expected.clients.items()}
    assert exported.forms.resources == expected.resources
    assert exported.forms.initial_tokens == expected.initial_tokens
    text = toml_of(exported.forms, exported.remarks)
    for path in (*exported.forms.clients.values(), *exported.forms.initial_tokens.values()):
        reference = path.secret if isinstance(path, DeclaredClient) else path.token
        if reference and reference.env:
            monkeypatch.setenv(reference.env, "anything")
        elif reference and reference.file:
            (tmp_path / reference.file).write_text("anything")
            (tmp_path / reference.file).chmod(0o600)
    (tmp_path / "all.toml").write_text(text)
    assert read_files(tmp_path / "all.toml").declared.forms == exported.forms
    with rules.begin() as engine:
        assert export(engine, kinds=("clients", "resources", "initial_tokens"), plugins=plugins) == exported


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_and_nothing_in_it_is_hidden(text: str) -> None:
    """T094."""
    written = text_of(text)
    assert tomllib.loads(f"a = {written}") == {"a": text}
    assert "\n" not in written
    assert "\x1b" not in written
    assert "\u202e" not in written


def test_the_examples_of_the_documentation_can_be_declared() -> None:
    page = (CHECKOUT / "docs/clients-from-git.rst").read_text()
    blocks = re.findall(r"^\.\. code-block:: toml\n\n((?:   .*\n|\n)+)", page, re.MULTILINE)
    texts = [re.sub("^   ", "", block, flags=re.MULTILINE) for block in blocks]
    assert len(texts) == 4
    for text in texts:
        for line in text.splitlines() if text.startswith("secret") else [text]:
            document = tomllib.loads(f"[clients.a]\nclient_name = 'A'\n{line}" if line != text else text)
            for kind in document.values():
                for entry in kind.values():
                    if "expires_at" in entry:
                        entry["expires_at"] = entry["expires_at"].isoformat()
            jsonschema.validate(document, schema(), cls=jsonschema.Draft202012Validator)


def test_the_published_schema_is_that_of_the_forms() -> None:
    """`authserver apply --schema > docs/declarations.schema.json` writes it."""
    assert json.loads((CHECKOUT / "docs/declarations.schema.json").read_text()) == schema()
