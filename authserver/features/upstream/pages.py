"""Sign-in through a provider: the view that sends the browser there, the callback, and the error page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyramid.config import Configurator
from pyramid.renderers import render_to_response
from pyramid.response import Response

from authserver.api import (
    MAXIMUM_HEAD,
    Counted,
    EventType,
    IdentityTaken,
    InvalidRequest,
    NothingThere,
    PageError,
    Parameters,
    Purpose,
    Request,
    Route,
    SignInRefused,
    SignInWay,
    VouchedIdentity,
    begin_and_go_on,
    browser_handle,
    claim_rate,
    give_back_rate,
    go_on,
    join_identity,
    joined_user,
    own_url,
    read_purpose,
    read_query,
    requester_of,
    see_other,
    see_own,
    sign_in_vouched,
    with_query,
)
from authserver.api import translatable as _
from authserver.features.upstream import attempts
from authserver.features.upstream.attempts import Attempt
from authserver.features.upstream.documents import Endpoints, NotUsable, endpoints_of
from authserver.features.upstream.ending import remember_session
from authserver.features.upstream.providers import Provider
from authserver.features.upstream.tokens import Refused, redeem

_TEMPLATES = "authserver.features.upstream:templates"
START = Route("provider_start", "/login/{provider}", ("GET",), refused=EventType.SIGN_IN_REFUSED)
CALLBACK = Route(
    "provider_callback", "/login/{provider}/callback", ("GET",), refused=EventType.SIGN_IN_REFUSED
)
# The name of the route of the account page that lists the providers (`account.py`).
ACCOUNT = "account_identities"
# A number of seconds; ten digits are about three centuries.
_SECONDS = re.compile(r"[0-9]{1,10}")
# The key of the verified answer: the database may make the server repeat the request, but a code works once.
_REDEEMED = "authserver.provider_answer"
# After how many seconds a person may try again if the provider does not answer (RFC 9110, 10.2.3).
AWAY_FOR = 60


class SignInFailed(PageError):
    """A sign-in through a provider failed; the page says why, and what the person can do."""

    def __init__(
        self, reason: str, told: str, provider: Provider, purpose: Purpose, *, detail: str = ""
    ) -> None:
        super().__init__(InvalidRequest(told, reason=reason), advises=True)
        self.provider = provider
        self.purpose = purpose
        self.facts = {"provider": provider.name, **({"problem": detail[:300]} if detail else {})}


class Unavailable(SignInFailed):
    """The provider cannot be asked now."""

    status = 503


# The sentences of the page, by reason; operators read the reason in the event.
DENIED = _("You did not allow it there, or that provider does not let you use this service.")
SIGN_IN_THERE = _("That provider needs you to sign in there first, and was not asked in a way that lets you.")
BUSY = _(
    "That provider cannot be reached at the moment. Try again in a few minutes, or sign in in another way."
)
BROKEN = _(
    "That provider answered in a way that cannot be trusted, so you are not signed in. Nothing of yours was shared."
)
FOREIGN = _("This sign-in did not begin in this browser, or was changed on its way. Start again.")
EXPIRED = _("This sign-in took too long. Start again.")
USED = _("This sign-in was finished already.")
OFF = _("Signing in through this provider is switched off.")
NOT_RECENT = _(
    "That provider did not ask you to sign in again, and this request needs that. Sign out there, and try again."
)
UNKNOWN = _(
    "Nobody here is known by that account. If you have an account here, sign in to it in another way, and add that provider in "
    "your account."
)
TAKEN = _(
    "There is an account here with your user name, and it may be somebody else's. If it is yours, sign in to it in another "
    "way, and add that provider in your account."
)
REFUSED = _(
    "You cannot sign in here with that account. If you should be able to, ask the people who run this service."
)
OTHERS = _("That account is joined to another person here already.")
SIGNED_OUT = _("You were signed out meanwhile. Sign in, and add the provider again.")

# The errors of a provider in place of a code (OAuth 2.1, 4.1.2.1; OIDC Core, 3.1.2.6), and their reasons on the page.
_ERRORS: Mapping[str, tuple[str, str]] = {
    "access_denied": ("provider-denied", DENIED),
    "login_required": ("provider-login-required", SIGN_IN_THERE),
    "interaction_required": ("provider-login-required", SIGN_IN_THERE),
    "consent_required": ("provider-login-required", SIGN_IN_THERE),
    "account_selection_required": ("provider-login-required", SIGN_IN_THERE),
}
_AWAY = ("temporarily_unavailable", "server_error")
# The reasons of a refusal although the provider has authenticated the person.
_NOT_LET_IN: Mapping[str, str] = {"identity-unknown": UNKNOWN, "identity-name-taken": TAKEN}
_NOT_BELIEVED: Mapping[str, str] = {"provider-sign-in-old": NOT_RECENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """The views."""

    providers: Mapping[str, Provider]

    def includeme(self, config: Configurator) -> None:
        config.add_endpoint(START, self.start)
        config.add_endpoint(CALLBACK, self.callback)
        config.add_exception_view(failed_page, context=SignInFailed)
        issuer_path = config.registry.application.parts.settings.issuer_path
        config.add_sign_in_way(lambda asked: self.ways(issuer_path, asked))

    def ways(self, issuer_path: str, asked: Parameters) -> Sequence[SignInWay]:
        """A button for each enabled provider; the one that the request hints at comes first (UP-11)."""
        expected = expected_domain(asked)
        return [
            SignInWay(
                label=provider.title,
                path=issuer_path + START.path.replace("{provider}", provider.name),
                is_expected=bool(expected) and expected in map(str.lower, provider.domains),
            )
            for provider in self.providers.values()
            if provider.enabled
        ]

    def start(self, request: Request) -> Response:
        """GET /login/{provider}: send the browser to the provider."""
        provider = self._provider(request)
        purpose = read_purpose(request, _read(request))
        if request.browser.user is not None and not purpose.must_sign_in:
            # The person is signed in already, perhaps in another tab. A link of somebody else must not change that.
            return go_on(request, purpose)
        requester = requester_of(request, purpose)
        asked = requester.parameters if requester else Parameters.parse("")
        attempt = Attempt(
            provider=provider.name,
            handle=requester.handle if requester else browser_handle(request),
            began_at=request.engine.now.timestamp(),
            maximum_age=0 if purpose.must_sign_in or "login" in _prompts(asked) else _maximum_age(asked),
            levels=tuple(
                dict.fromkeys(
                    provider.acr_of.get(level, level) for level in (asked.get("acr_values") or "").split()
                )
            ),
            sealed_request=purpose.sealed_request,
            return_page=purpose.return_page,
            again=purpose.again,
        )
        hints = {
            name: next(iter(asked.all(name)), "")[:200]
            for name in ("login_hint", "domain_hint", "ui_locales")
        }
        if "select_account" in _prompts(asked):
            hints["prompt"] = "select_account"
        return see_other(self.way_there(request, provider, attempt, purpose, hints))

    def way_there(
        self,
        request: Request,
        provider: Provider,
        attempt: Attempt,
        purpose: Purpose,
        hints: Mapping[str, str],
    ) -> str:
        """The address at which the provider asks the person. Raises SignInFailed."""
        endpoints = self._endpoints(request, provider, purpose)
        sent = {
            "response_type": "code",
            "client_id": provider.client_id,
            "redirect_uri": callback_url(request, provider),
            "scope": provider.scope,
            "state": attempts.seal(request.engine, attempt),
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
            "max_age": "" if attempt.maximum_age is None else str(attempt.maximum_age),
            "acr_values": " ".join(attempt.levels),
            **hints,
            # A new sign-in includes the choice of an account, and some providers accept only one value.
            **({"prompt": "login"} if attempt.maximum_age == 0 else {}),
        }
        return with_query(endpoints.authorization, [(name, text) for name, text in sent.items() if text])

    def callback(self, request: Request) -> Response:
        """GET /login/{provider}/callback: the browser comes back from the provider, with a code or an error."""
        provider = self._provider(request)
        answer, engine = _read(request), request.engine
        attempt = self._attempt(request, provider, answer)
        purpose = purpose_of(attempt)
        endpoints = self._endpoints(request, provider, purpose)
        _check_sender(provider, endpoints, answer, purpose)
        vouched = request.environ.get(_REDEEMED)
        if vouched is None:
            vouched = request.environ[_REDEEMED] = self._redeem(request, provider, endpoints, attempt, answer)
        if attempt.joins:
            return _join(request, provider, attempt, vouched)
        try:
            signed_in = sign_in_vouched(
                engine,
                vouched,
                joined_user(engine, vouched),
                adds_people=provider.adds_people,
                administering=provider.administering_groups,
                previous_session_id=request.browser.session_id,
            )
        except SignInRefused as refused:
            told = _NOT_LET_IN.get(refused.reason, REFUSED)
            detail = refused.facts.get("problem", "")
            raise SignInFailed(refused.reason, told, provider, purpose, detail=detail) from None
        if not attempts.use(engine, attempt):
            raise SignInFailed("provider-attempt-used", USED, provider, purpose)
        if vouched.session:
            remember_session(engine, provider, vouched.subject, vouched.session)
        return begin_and_go_on(request, signed_in, purpose)

    def _provider(self, request: Request) -> Provider:
        provider = self.providers.get(request.matchdict["provider"])
        if provider is None:
            raise NothingThere
        if not provider.enabled:
            raise SignInFailed("provider-off", OFF, provider, Purpose())
        return provider

    def _endpoints(self, request: Request, provider: Provider, purpose: Purpose) -> Endpoints:
        try:
            return endpoints_of(request.engine, provider)
        except NotUsable as problem:
            raise _away(problem, provider, purpose) from None

    def _attempt(self, request: Request, provider: Provider, answer: Parameters) -> Attempt:
        """The attempt of this browser. Raises SignInFailed."""
        states = answer.all("state")
        try:
            if len(states) != 1:
                raise attempts.Foreign
            return attempts.unseal(request.engine, states[0], request.browser, provider.name)
        except attempts.Foreign:
            raise SignInFailed("provider-state-foreign", FOREIGN, provider, Purpose()) from None
        except attempts.Over as over:
            reason, told = (
                ("provider-attempt-used", USED) if over.was_used else ("provider-attempt-expired", EXPIRED)
            )
            raise SignInFailed(reason, told, provider, purpose_of(over.attempt)) from None

    def _redeem(
        self, request: Request, provider: Provider, endpoints: Endpoints, attempt: Attempt, answer: Parameters
    ) -> VouchedIdentity:
        """Redeem the code of this answer: the identity of the person. Raises SignInFailed, TooManyRequests."""
        purpose, engine = purpose_of(attempt), request.engine
        errors, codes = answer.all("error"), answer.all("code")
        if errors:
            raise _refused_there(errors[0], provider, purpose)
        if len(codes) != 1 or not codes[0]:
            raise SignInFailed("provider-answer-malformed", BROKEN, provider, purpose)
        # Each attempt makes work for the provider, in the name of this server.
        claimed = claim_rate(engine, Counted.SIGN_IN)
        try:
            vouched = redeem(engine, provider, endpoints, attempt, codes[0], callback_url(request, provider))
        except Refused as refused:
            told = _NOT_BELIEVED.get(refused.reason, BROKEN)
            raise SignInFailed(refused.reason, told, provider, purpose) from None
        except NotUsable as problem:
            raise _away(problem, provider, purpose) from None
        give_back_rate(engine, claimed)
        return vouched


def _join(request: Request, provider: Provider, attempt: Attempt, vouched: VouchedIdentity) -> Response:
    """Join the identity to the signed-in person who asked for it (UP-03)."""
    user, session = request.browser.user, request.browser.session
    if (
        user is None
        or session is None
        or user.user_id != attempt.joins
        # The session must still exist: a person who signed out everywhere in the meantime wants nothing to be added.
        or not request.engine.stores.sessions.hold(session.digest)
    ):
        raise SignInFailed("provider-signed-out", SIGNED_OUT, provider, Purpose(return_page=ACCOUNT))
    if not attempts.use(request.engine, attempt):
        raise SignInFailed("provider-attempt-used", USED, provider, purpose_of(attempt))
    try:
        join_identity(request.engine, user, vouched)
    except IdentityTaken:
        raise SignInFailed("identity-taken", OTHERS, provider, purpose_of(attempt)) from None
    return see_own(request, ACCOUNT, notice="identity-joined")


def callback_url(request: Request, provider: Provider) -> str:
    """The redirect URI for this provider: each has its own (RFC 9700, 4.4.2)."""
    return own_url(request, CALLBACK.name).replace("{provider}", provider.name)


def purpose_of(attempt: Attempt) -> Purpose:
    """The purpose of the sign-in."""
    return Purpose(
        sealed_request=attempt.sealed_request,
        return_page=attempt.return_page,
        again=attempt.again,
        must_sign_in=attempt.maximum_age == 0,
    )


def expected_domain(asked: Parameters) -> str:
    """The expected domain of the person, from the request of the application; "" without one. It is not trusted."""
    domain = (
        next(iter(asked.all("domain_hint")), "") or next(iter(asked.all("login_hint")), "").rpartition("@")[2]
    )
    return domain.lower()


def failed_page(failed: SignInFailed, request: Request) -> Response:
    """The error page: the reason, and what the person can do."""
    provider, purpose = failed.provider, failed.purpose
    is_over = request.browser.user is not None and not purpose.must_sign_in
    page: dict[str, Any] = {
        "provider": provider.title,
        "message": failed.description,
        "code": failed.reason,
        "details": None,
        "error_id": request.error_id,
        "again": with_query(
            own_url(request, START.name).replace("{provider}", provider.name), purpose.query.items()
        )
        if provider.enabled and not is_over
        else None,
        "go_on": go_on(request, purpose).location if is_over else None,
        "other": with_query(own_url(request, "login"), purpose.query.items()),
    }
    response: Response = render_to_response(f"{_TEMPLATES}/failed.jinja2", page, request)
    response.status_int = failed.status
    if failed.status == Unavailable.status:
        response.retry_after = AWAY_FOR
    return response


def _read(request: Request) -> Parameters:
    """The parameters of the address; a `state` may be long, because it contains an authorization request."""
    try:
        return read_query(request, parse=lambda query: Parameters.parse(query, maximum=MAXIMUM_HEAD))
    except InvalidRequest as error:
        raise PageError(error) from None


def _check_sender(provider: Provider, endpoints: Endpoints, answer: Parameters, purpose: Purpose) -> None:
    """Check that the answer is from the provider that was asked (RFC 9207, 2.4). Raises SignInFailed."""
    named = answer.all("iss")
    if named != (provider.issuer,) and (named or endpoints.names_itself):
        raise SignInFailed("provider-answer-issuer", BROKEN, provider, purpose)


def _refused_there(error: str, provider: Provider, purpose: Purpose) -> SignInFailed:
    """The failure for an error code of the provider."""
    if error in _AWAY:
        return Unavailable("provider-unavailable", BUSY, provider, purpose)
    reason, told = _ERRORS.get(error, ("provider-error", BROKEN))
    known = error if re.fullmatch(r"[a-z_]{1,60}", error) else "other"
    return SignInFailed(reason, told, provider, purpose, detail=known)


def _away(problem: NotUsable, provider: Provider, purpose: Purpose) -> SignInFailed:
    if problem.is_temporary:
        return Unavailable(problem.reason, BUSY, provider, purpose, detail=problem.detail)
    return SignInFailed(problem.reason, BROKEN, provider, purpose, detail=problem.detail)


def _prompts(asked: Parameters) -> list[str]:
    """The values of `prompt` in the request of the application (OIDC Core, 3.1.2.1)."""
    return next(iter(asked.all("prompt")), "").split(" ")


def _maximum_age(asked: Parameters) -> int | None:
    """The `max_age` of the request of the application, or None."""
    text = next(iter(asked.all("max_age")), "")
    return int(text) if _SECONDS.fullmatch(text) else None
