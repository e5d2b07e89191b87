"""Tries a decision: shows how a question would be decided now. Nothing is changed, and no answer has an effect."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from authserver.administration import source_of
from authserver.api import Engine, TokenKind
from authserver.explaining import questions
from authserver.explaining.explain import explain
from authserver.features.console.checks import outcome_of, told_check
from authserver.features.console.pages import BadInput, Page, Visit

_KINDS = {"": "Access token", "refresh": "Refresh token"}
# The address from which a client would register itself, unless another one is typed.
_SOURCE = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of a question.

    Attributes:
        option: the option of the command, such as `--scope`; "" for an argument.
        is_list: whether it may have several values, separated by spaces.
    """

    name: str
    label: str
    hint: str = ""
    required: bool = False
    option: str = ""
    is_list: bool = False
    rows: int = 0
    options: tuple[tuple[str, str], ...] | None = None


Ask = Callable[[Engine, Mapping[str, str]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question that a page can ask.

    Attributes:
        name: its name in `authserver explain`.
        hook: the hook that decides it.
        ask: the rule; it gets the typed values by the names of the fields.
    """

    name: str
    label: str
    hook: str
    fields: tuple[Field, ...]
    ask: Ask


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_CLIENT = Field(name="client", label="Client id", required=True)
_SCOPES = Field(
    name="scopes",
    label="Scopes",
    hint="Separated by spaces; empty: the request names none.",
    option="--scope",
    is_list=True,
)
_RESOURCES = Field(
    name="resources",
    label="Resources",
    hint="URIs, separated by spaces; empty: the default resource.",
    option="--resource",
    is_list=True,
)
QUESTIONS = (
    Question(
        name="scope",
        label="Which scopes may a client have?",
        hook="scope_decision",
        fields=(
            _CLIENT,
            _SCOPES,
            _RESOURCES,
            Field(name="user", label="Person", hint="User name; empty: the client itself.", option="--user"),
            Field(
                name="grant_type",
                label="Grant type",
                hint="Empty: the usual one.",
                option="--grant-type",
            ),
        ),
        ask=lambda engine, sent: questions.scope(
            engine,
            sent["client"],
            scopes=_list(sent["scopes"]),
            resources=_list(sent["resources"]),
            username=sent["user"] or None,
            grant_type=sent["grant_type"] or None,
        ),
    ),
    Question(
        name="redirect-uri",
        label="May a response go to this redirect URI?",
        hook="redirect_uri_decision",
        fields=(_CLIENT, Field(name="redirect_uri", label="Redirect URI", required=True)),
        ask=lambda engine, sent: questions.redirect_uri(engine, sent["client"], sent["redirect_uri"]),
    ),
    Question(
        name="resource",
        label="Which resources may a client ask for?",
        hook="resource_decision",
        fields=(_CLIENT, _RESOURCES),
        ask=lambda engine, sent: questions.resource(
            engine, sent["client"], resources=_list(sent["resources"])
        ),
    ),
    Question(
        name="consent",
        label="Is a person asked before a client gets a code?",
        hook="consent_decision",
        fields=(
            _CLIENT,
            Field(name="user", label="Person", hint="User name.", required=True),
            _SCOPES,
            _RESOURCES,
            Field(
                name="redirect_uri",
                label="Redirect URI",
                hint="Empty: the client's first.",
                option="--redirect-uri",
            ),
        ),
        ask=lambda engine, sent: questions.consent(
            engine,
            sent["client"],
            sent["user"],
            scopes=_list(sent["scopes"]),
            resources=_list(sent["resources"]),
            redirect_uri=sent["redirect_uri"] or None,
        ),
    ),
    Question(
        name="introspection",
        label="May a client read a token?",
        hook="introspection_decision",
        fields=(
            replace(_CLIENT, hint="The client that asks, usually an API."),
            Field(
                name="token_client",
                label="Client of the token",
                hint="The client to which the token was issued.",
                required=True,
            ),
            Field(
                name="user",
                label="Person",
                hint="The person whose grant it is; empty: the client's own grant.",
                option="--user",
            ),
            replace(_SCOPES, hint="The scopes of the token, separated by spaces."),
            replace(_RESOURCES, hint="The audience of the token: URIs, separated by spaces."),
            Field(name="kind", label="Kind of token", option="--refresh", options=tuple(_KINDS.items())),
        ),
        ask=lambda engine, sent: questions.introspection(
            engine,
            sent["client"],
            sent["token_client"],
            scopes=_list(sent["scopes"]),
            resources=_list(sent["resources"]),
            username=sent["user"] or None,
            kind=TokenKind.REFRESH if sent["kind"] else TokenKind.ACCESS,
        ),
    ),
    Question(
        name="registration",
        label="Could a client register itself?",
        hook="registration_decision",
        fields=(
            Field(
                name="metadata",
                label="Client metadata",
                hint="JSON in the form that is sent to the registration endpoint.",
                required=True,
                rows=10,
            ),
            Field(
                name="initial_token",
                label="Initial access token",
                hint="Its id, not the token: authserver initial-token list shows it. Empty: none.",
                option="--initial-token",
            ),
            Field(
                name="source",
                label="Network address",
                hint=f"The address of the client; empty: {_SOURCE}.",
                option="--source",
            ),
        ),
        ask=lambda engine, sent: questions.registration(
            engine,
            sent["metadata"].encode(),
            source=source_of(sent["source"]) if sent["source"] else _SOURCE,
            token_id=sent["initial_token"] or None,
        ),
    ),
)
BY_HOOK = {question.hook: question.name for question in QUESTIONS}
_BY_NAME = {question.name: question for question in QUESTIONS}


def show(visit: Visit) -> Mapping[str, Any]:
    """The form of one question, and if it was sent, how the question would be decided."""
    name = visit.get("question") or QUESTIONS[0].name
    question = _BY_NAME.get(name)
    if question is None:
        raise BadInput(f"question: expected {', '.join(_BY_NAME)}")
    sent = {field.name: visit.get(field.name) for field in question.fields}
    found: Mapping[str, Any] = {}
    problem = ""
    if visit.get("ask"):
        problem = next(_missing(question, sent), "")
        if not problem:
            try:
                found = _asked(visit, question, sent)
            except questions.NotFound as error:
                problem = str(error)
    return {
        "question": question,
        "questions": QUESTIONS,
        "sent": sent,
        "told": None,
        **found,
        "problem": problem,
        "status": 400 if problem else 200,
    }


def _missing(question: Question, sent: Mapping[str, str]) -> Iterator[str]:
    for field in question.fields:
        value = sent[field.name]
        if field.required and not value:
            yield f"{field.label}: type something, because the question is about it."
        if field.options is not None and value not in dict(field.options):
            yield f"{field.label}: choose one of {', '.join(words for _, words in field.options)}."


def _asked(visit: Visit, question: Question, sent: Mapping[str, str]) -> Mapping[str, Any]:
    """The values for the answer. Raises NotFound, and BadSearch for a text that is not a network address."""
    plugins = visit.application.parts.policies
    engine = questions.apart(visit.engine, plugins)
    told = explain(engine, plugins, lambda: question.ask(engine, sent))
    more = questions.registered(engine, _list(sent["resources"])) if question.name == "resource" else {}
    return {
        "told": told,
        "checks": [told_check(check) for check in told.checks],
        "outcome": [*outcome_of(told), *((name, value) for name, value in more.items() if value)],
        "command": shlex.join(_command(question, sent)),
    }


def _command(question: Question, sent: Mapping[str, str]) -> Sequence[str]:
    """The same question for the command line; the metadata are given on its standard input."""
    words = ["authserver", "explain", question.name]
    options: list[str] = []
    for field in question.fields:
        value = sent[field.name]
        if field.options is not None:
            options += [field.option] if value else []
        elif not field.option:
            words.append("-" if field.rows else value)
        else:
            for each in _list(value) if field.is_list else (value,):
                options += [field.option, each] if each else []
    return [*words, *options]


PAGES = (
    Page(
        name="admin_policy_try",
        path="/admin/policies/try",
        show=show,
        template="policy_try.jinja2",
        below="admin_policies",
    ),
)
