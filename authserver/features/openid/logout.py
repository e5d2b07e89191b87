"""Sign-out by an application (OpenID Connect RP-Initiated Logout 1.0).

A request with an ID token of the present session ends that session at once. For any other request the person is asked in
a form of this server. The browser is sent only to an address that the client registered. Without an ID token of this
session it is sent there only after the question, unless an operator registered the client.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyramid.config import Configurator
from pyramid.renderers import render_to_response
from pyramid.response import Response

from authserver.api import (
    Client,
    Engine,
    InvalidClient,
    InvalidRequest,
    OAuthError,
    PageError,
    Parameters,
    Request,
    Route,
    Unsealable,
    describe_client,
    display_host,
    from_text,
    in_words,
    lead_on,
    let_forms_lead_on,
    own_url,
    read_own_form,
    read_page_form,
    read_page_query,
    same_loopback_redirect_uri,
    see_other,
    see_own,
    session_handle,
    session_token,
    sign_out_here,
    to_text,
    with_query,
)
from authserver.features.openid import id_tokens

ROUTE = Route("end_session", "/oauth/logout", ("GET", "POST"), metadata="end_session_endpoint")
ANSWER = Route("end_session_answer", "/oauth/logout/answer", ("POST",))
# In the metadata of a client.
REDIRECT_URIS = "post_logout_redirect_uris"
# The parameters that are read. Others are ignored, including `logout_hint`, because the person is known from the
# session.
PARAMETERS = ("id_token_hint", "client_id", "post_logout_redirect_uri", "state", "ui_locales")
# The field with these parameters, sealed, while the person is asked.
SEALED = "request"
PURPOSE = "logout-request"
# The most characters of the parameters of a form that are put into an address.
MAXIMUM_SEALED = 8_000
# For these hosts any port is accepted (RFC 8252, 7.3), as for redirect URIs.
HOSTS = ("127.0.0.1", "[::1]")
_TEMPLATES = "authserver.features.openid:templates"


class LogoutRefused(PageError):
    """The request cannot be answered, and nobody was signed out; the page says how to sign out here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutRequest:
    """A checked request to sign out.

    Attributes:
        parameters: the parameters as they were sent.
        client: the client that asks; None if it is not named, or does not exist any more.
        session: the `sid` of the ID token, whose session is to end; None without an ID token.
        location: the address to which the person is sent afterwards, with `state`; "" for a page here.
    """

    parameters: Parameters
    client: Client | None = None
    session: str | None = None
    location: str = ""

    @property
    def host(self) -> str:
        """The host of the address, for the page."""
        return display_host(self.location.partition("?")[0])

    @property
    def is_vouched_for(self) -> bool:
        """Whether a browser may be sent on without a question: it has an ID token, of a client that an operator added."""
        return self.session is not None and self.client is not None and not self.client.is_self_registered


def includeme(config: Configurator) -> None:
    """Add the endpoint and its pages."""
    config.add_endpoint(ROUTE, end_session)
    config.add_endpoint(ANSWER, answer)
    config.add_exception_view(_refused, context=LogoutRefused)


def end_session(request: Request) -> Response:
    """GET and POST /oauth/logout."""
    is_post = request.method == "POST"
    sent = read_page_form(request) if is_post else read_page_query(request)
    if not is_post and SEALED in sent:
        sent = unseal(request.engine, sent.get(SEALED) or "")
    wish = read(request.engine, sent.only(*PARAMETERS))
    if is_post and request.browser.user is None:
        # Another site sends a form without the cookie of the session; after a redirect it is there.
        return see_own(request, ROUTE.name, **{SEALED: seal(request.engine, wish.parameters)})
    is_here = wish.session is not None and wish.session == session_handle(request)
    if request.browser.user is not None:
        if not is_here:
            return _ask(request, wish)
        sign_out_here(request)
    if wish.location and (is_here or wish.is_vouched_for):
        return see_other(wish.location)
    return _signed_out(request, wish)


def answer(request: Request) -> Response:
    """POST /oauth/logout/answer: the person wants to sign out."""
    form = read_own_form(request)
    wish = read(request.engine, unseal(request.engine, form.get(SEALED) or ""))
    sign_out_here(request)
    return lead_on(request, wish.location) if wish.location else _signed_out(request, wish)


def read(engine: Engine, parameters: Parameters) -> LogoutRequest:
    """The checked request of these parameters.

    Raises:
        LogoutRefused: the ID token is of another server or another client, the client does not exist, or it did not
            register the address.
    """
    # This is read before anything can be refused, because error pages are in this language, too.
    engine.journal.note_languages(parameters)
    try:
        return _read(engine, parameters)
    except OAuthError as error:
        raise LogoutRefused(error) from None


def _read(engine: Engine, parameters: Parameters) -> LogoutRequest:
    parameters.refuse_repeated(allowed=frozenset())
    hint, client_id = parameters.get("id_token_hint"), parameters.get("client_id")
    claims = {} if hint is None else id_tokens.read_hint(engine, client_id, hint)
    client_id = claims.get("aud", client_id)
    client = None
    if client_id is not None:
        try:
            client = _find(engine, client_id)
        except OAuthError:
            # With an ID token the person is signed out, even if the application does not exist any more.
            if not claims:
                raise
    return LogoutRequest(
        parameters=parameters,
        client=client,
        session=claims.get("sid"),
        location=_location(client, parameters.get("post_logout_redirect_uri"), parameters.get("state")),
    )


def _find(engine: Engine, client_id: str) -> Client:
    """The enabled client with this id. Raises OAuthError."""
    try:
        client = engine.find_client(client_id)
    except InvalidClient:
        client = None
    if client is None or not client.is_enabled:
        raise InvalidRequest(
            "There is no such application here.", reason="client-disabled" if client else "client-unknown"
        )
    engine.journal.client_id = client.client_id
    return client


def _location(client: Client | None, uri: str | None, state: str | None) -> str:
    """The address to go to afterwards; "" without one, or without a known client. Raises InvalidRequest."""
    if client is None or uri is None:
        return ""
    registered = client.details.get(REDIRECT_URIS, ())
    if uri not in registered and not any(same_loopback_redirect_uri(each, uri, HOSTS) for each in registered):
        raise InvalidRequest(
            "post_logout_redirect_uri is not registered for this application.",
            reason="logout-redirect-refused",
        )
    return with_query(uri, () if state is None else (("state", state),))


def seal(engine: Engine, parameters: Parameters) -> str:
    """The parameters as one text that only this server can read. Raises LogoutRefused if it is too long."""
    encoded = parameters.encoded()
    if len(encoded) > MAXIMUM_SEALED:
        raise LogoutRefused(InvalidRequest("The request is too long.", reason="logout-malformed"))
    return to_text(engine.ring.seal(encoded.encode(), purpose=PURPOSE))


def unseal(engine: Engine, text: str) -> Parameters:
    """The parameters in a sealed text. Raises LogoutRefused for any other text."""
    try:
        return Parameters.parse(engine.ring.open(from_text(text), purpose=PURPOSE))
    except Unsealable:
        raise LogoutRefused(
            InvalidRequest("The request was changed on its way.", reason="logout-malformed")
        ) from None


def _ask(request: Request, wish: LogoutRequest) -> Response:
    """The page that asks whether to sign out."""
    if wish.location:
        let_forms_lead_on(request)
    return _page(
        request,
        "sign_out",
        action=own_url(request, ANSWER.name),
        csrf_token=session_token(request, ANSWER.name),
        sealed_request=seal(request.engine, wish.parameters),
        client=describe_client(request, wish.client) if wish.client else None,
        host=wish.host,
    )


def _signed_out(request: Request, wish: LogoutRequest) -> Response:
    return _page(request, "signed_out", location=wish.location, host=wish.host, signed_in=None)


def _refused(refusal: LogoutRefused, request: Request) -> Response:
    response = _page(
        request,
        "logout_refused",
        code=refusal.code,
        details=in_words(refusal.description),
        error_id=request.error_id,
        signed_in=None,
    )
    response.status_int = refusal.status
    return response


def _page(request: Request, template: str, **values: object) -> Response:
    response: Response = render_to_response(f"{_TEMPLATES}/{template}.jinja2", values, request)
    return response
