"""Ask an HTTP endpoint: every deciding hook of authserver, answered elsewhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from authserver.api import (
    DECIDING,
    Client,
    ClientMetadata,
    Credentials,
    Decision,
    Identity,
    Question,
    Secret,
    User,
    allow,
    deny,
    hookimpl,
    narrow,
)
from authserver_webhook_policy import answers
from authserver_webhook_policy.answers import IDENTIFIER, Answer, UnusableAnswer
from authserver_webhook_policy.cache import Cache
from authserver_webhook_policy.endpoint import Endpoint, EndpointFailed
from authserver_webhook_policy.signature import key_of

__all__ = ["EndpointFailed", "UnusableAnswer", "WebhookPolicy"]

HOOKS = tuple(DECIDING)
# The recorded reasons for an endpoint's reason that is not among `known_reasons`.
REASONS = {"allow": "webhook-allowed", "narrow": "webhook-narrowed", "deny": "webhook-denied"}
# A sign-in is decided each time, and a rate limit must count each request.
NEVER_REMEMBERED = frozenset({"identity_decision", "login_decision", "rate_decision"})

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(eq=False)
class WebhookPolicy:
    """Let an HTTP endpoint decide. Without a valid answer in time it raises, so the server refuses.

    Attributes:
        hooks: the decisions that the endpoint makes.
        url: of the endpoint; https, or http to this machine.
        secret: the requests are signed with it; `whsec_` and base64 of 24 to 64 random bytes.
        timeout: seconds for one question with all its attempts, less than `authserver.policy_time_limit`.
        retries: new attempts when the connection fails or the endpoint says 502, 503 or 504.
        cache_seconds: how long an allow or a narrow is used again for exactly the same question; 0 asks each time.
        cache_size: how many such answers are kept.
        ca_file: path of the certificates to trust instead of the system's.
        known_reasons: the endpoint's reasons that are recorded; others become `webhook-allowed` and the like.
        send_password: whether the endpoint gets what people type on the sign-in page, password included.
    """

    hooks: tuple[str, ...]
    url: str
    secret: Secret = field(repr=False)
    timeout: float = 1.5
    retries: int = 2
    cache_seconds: int = 0
    cache_size: int = 1000
    ca_file: str = ""
    known_reasons: tuple[str, ...] = ()
    send_password: bool = False
    _endpoint: Endpoint = field(init=False, repr=False)
    _cache: Cache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.hooks:
            raise ValueError(f"hooks: is empty; name some of {', '.join(HOOKS)}")
        for hook in self.hooks:
            if hook not in HOOKS:
                raise ValueError(f"hooks: {hook}: no such hook; known: {', '.join(HOOKS)}")
        for setting, least, value, most in (
            ("timeout", 0.01, self.timeout, 30),
            ("retries", 0, self.retries, 5),
            ("cache_seconds", 0, self.cache_seconds, 3600),
            ("cache_size", 1, self.cache_size, 100_000),
        ):
            if not least <= value <= most:
                raise ValueError(f"{setting}: must be {least} to {most}")
        for reason in self.known_reasons:
            if not IDENTIFIER.fullmatch(reason):
                raise ValueError(f"known_reasons: {reason!r}: must be small letters, digits and hyphens")
        if "\n" in self.ca_file:
            raise ValueError("ca_file: this is the text of a file; give its path, without `file:` before it")
        if self.send_password and "login_decision" not in self.hooks:
            raise ValueError("send_password: only login_decision has a password; add it to hooks")

    def prepare(self) -> None:
        """Prepare the connections to the endpoint; nothing is sent yet. Raises ValueError."""
        try:
            key = key_of(self.secret.value)
        except ValueError as error:
            raise ValueError(f"secret: {error}") from None
        self._endpoint = Endpoint(
            self.url, key, timeout=self.timeout, retries=self.retries, ca_file=self.ca_file
        )
        self._cache = Cache(self.cache_seconds, self.cache_size)
        if self.send_password:
            log.warning("the passwords that people type are sent to %s (send_password)", self._endpoint.name)

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    @property
    def serves(self) -> tuple[str, ...]:
        """The hooks that the settings name."""
        return self.hooks

    @property
    def reasons(self) -> frozenset[str]:
        """Every reason it may give."""
        return frozenset({*REASONS.values(), *self.known_reasons})

    @hookimpl
    def client_auth_decision(
        self, client: Client, credentials: Credentials, question: Question[None]
    ) -> Decision[None] | None:
        if credentials.method.startswith("client_secret_") and not credentials.secret_matches:
            # No answer could allow it, so an attacker who guesses secrets cannot make the endpoint work.
            return None
        decision = self._ask(question)
        # The endpoint sees no credential. If the server has not checked one, the endpoint may refuse but not allow.
        proven = credentials.secret_matches or (credentials.method == "none" and client.is_public)
        return decision if proven else _only_refusing(decision)

    @hookimpl
    def scope_decision(
        self, client: Client, requested: tuple[str, ...], question: Question[tuple[str, ...]]
    ) -> Decision[tuple[str, ...]] | None:
        # The facts do not say which scopes the client is registered for, so scopes beyond them are removed, not refused.
        ceiling = requested or client.scopes

        def within(value: Any) -> tuple[str, ...]:
            return tuple(scope for scope in answers.scopes(value) if scope in ceiling)

        return self._ask(question, within)

    @hookimpl
    def resource_decision(self, resource: str | None, question: Question[str]) -> Decision[str] | None:
        return self._ask(question, lambda value: answers.resource(value, resource))

    @hookimpl
    def login_decision(
        self, username: str, password: Secret, question: Question[Identity]
    ) -> Decision[Identity] | None:
        if not username or not password.value:
            # Before the page is shown, or with an empty form: no credential could authenticate a person.
            return None
        typed = {"username": username, "password": password.value} if self.send_password else None
        decision = self._ask(question, answers.identity, typed=typed)
        # An endpoint that has not seen the password may refuse but not allow.
        return decision if self.send_password else _only_refusing(decision)

    @hookimpl
    def identity_decision(self, user: User | None, question: Question[Identity]) -> Decision[Identity] | None:
        def recognised(value: Any) -> Identity:
            # No password was typed here, and the endpoint does not see how the person was authenticated.
            return replace(answers.identity(value), methods=())

        decision = self._ask(question, recognised)
        # The facts do not identify a person who has no account here, so the endpoint may refuse but not allow.
        return decision if user is not None else _only_refusing(decision)

    @hookimpl
    def registration_decision(
        self, metadata: ClientMetadata, question: Question[ClientMetadata]
    ) -> Decision[ClientMetadata] | None:
        return self._ask(question, lambda value: answers.metadata(value, metadata))

    def _ask(
        self,
        question: Question[T],
        value_of: Callable[[Any], T] | None = None,
        *,
        typed: dict[str, str] | None = None,
    ) -> Decision[T] | None:
        """The endpoint's decision about this question. Raises EndpointFailed and UnusableAnswer.

        Args:
            value_of: reads the value of an allow; by default it has the type that the hook declares.
            typed: the text that was typed on the sign-in page, if the endpoint gets it.
        """
        sent: dict[str, Any] = {"hook": question.hook, "facts": question.facts()}
        if typed is not None:
            sent["typed"] = typed
        # The same question always gives the same text, and all of it is ASCII.
        body = json.dumps(sent, sort_keys=True, separators=(",", ":")).encode("ascii")
        remembers = question.hook not in NEVER_REMEMBERED
        answer = self._cache.find(body) if remembers else None
        if answer is not None:
            return self._decision(question, answer, value_of)
        answer = answers.read(self._endpoint.ask(body))
        decision = self._decision(question, answer, value_of)
        if remembers and answer.verdict in ("allow", "narrow"):
            self._cache.keep(body, answer)
        return decision

    def _decision(
        self, question: Question[T], answer: Answer, value_of: Callable[[Any], T] | None
    ) -> Decision[T] | None:
        if answer.verdict == "none":
            return None
        hook = DECIDING[question.hook]
        reason = answer.reason if answer.reason in self.known_reasons else REASONS[answer.verdict]
        if answer.verdict == "deny":
            if answer.error_code is not None and not hook.codes:
                raise UnusableAnswer("this hook has no error_code")
            if answer.wait is not None and not hook.waits:
                raise UnusableAnswer("this hook has no wait")
            return deny(reason, answer.error_code, wait=answer.wait)
        if answer.verdict == "allow":
            return allow(reason, (value_of or answers.reader_of(hook.value))(answer.value))
        if not hook.narrows:
            raise UnusableAnswer("this hook cannot be narrowed")
        return narrow(reason, answers.reader_of(hook.value)(answer.value))


def _serving(hook: str) -> Callable[..., Decision[Any] | None]:
    """The implementation of a hook without a special rule."""

    def answer(self: WebhookPolicy, question: Question[Any]) -> Decision[Any] | None:
        return self._ask(question)

    answer.__name__, answer.__qualname__ = hook, f"{WebhookPolicy.__qualname__}.{hook}"
    return hookimpl(answer)


for _hook in HOOKS:
    if not hasattr(WebhookPolicy, _hook):
        setattr(WebhookPolicy, _hook, _serving(_hook))


def _only_refusing(decision: Decision[T] | None) -> Decision[T] | None:
    """The same decision, except that an allow becomes silence."""
    return None if decision is not None and decision.verdict == "allow" else decision
