"""GET|POST /set-password and /forgot-password: sets a password with a link, and sends such a link.

The page is the same for every link, because the secret is in the fragment of the address. A form sends the link: a script
does so at once, or the person pastes the link. The next page shows whose password will be set; its form sets it.
"""

from __future__ import annotations

from typing import Any

from pyramid.response import Response
from pyramid.view import exception_view_config, view_config

from authserver.engine.errors import PasswordLinkRefused, PasswordRefused
from authserver.engine.parameters import Parameters
from authserver.engine.pending import form_handle, form_token
from authserver.engine.people.password_links import ask_for_link, open_link, use_link
from authserver.engine.records import User
from authserver.settings import Secret
from authserver.web.forms import read_page_query
from authserver.web.pages import own_url, render_page, see_own
from authserver.web.request import Request
from authserver.web.retry_after import minutes
from authserver.web.session import ForgedForm, read_form_from_here, stranger_token, token_of


class NewPasswordRefused(PasswordRefused):
    """The new password cannot be used. It has the link, the person and the token of the form, to try again."""

    def __init__(self, refused: PasswordRefused, link: str, user: User, csrf_token: str) -> None:
        super().__init__(refused.description, reason=refused.reason, field=refused.field)
        self.link = link
        self.user = user
        self.csrf_token = csrf_token


@view_config(route_name="password_link", request_method="GET")
def ask_link(request: Request) -> Response:
    """GET: the page that a link to set a password opens. The link itself is in the fragment, so no log has it."""
    request.content_security_policy = {
        **request.content_security_policy,
        "script-src": [own_url(request, "open_link")],
    }
    return _page(request, csrf_token=stranger_token(request), asks_link=True)


@view_config(route_name="password_link", request_method="POST")
def set_password(request: Request) -> Response:
    """POST: show the form for the user of a link, or set the password that was typed, which uses the link up.

    Raises:
        PasswordLinkRefused: the link is unknown, used or expired, or a later change made it invalid.
        NewPasswordRefused: the password cannot be used; the form is shown again.
    """
    engine, (form, token, handle) = request.engine, _read_form(request)
    link = form.get("link") or ""
    user = open_link(engine, link).user
    if "set" not in form:
        return _choose(request, link, user, form_token(engine, handle))
    new, repeated = (Secret(form.get(name) or "") for name in ("new_password", "repeated"))
    try:
        use_link(engine, link, new=new, repeated=repeated)
    except PasswordRefused as refused:
        raise NewPasswordRefused(refused, link, user, token) from None
    return see_own(request, "login", notice="password-set")


@exception_view_config(NewPasswordRefused)
def refuse_password(refusal: NewPasswordRefused, request: Request) -> Response:
    """The form again with the problem, as status 400."""
    response = _choose(request, refusal.link, refusal.user, refusal.csrf_token, refusal)
    response.status_int = 400
    return response


@exception_view_config(PasswordLinkRefused)
def refuse_link(refusal: PasswordLinkRefused, request: Request) -> Response:
    """A page that says that the link does not work any more, whatever the cause, as status 400."""
    response = _page(request, refused=True)
    response.status_int = 400
    return response


@view_config(route_name="forgotten_password", request_method="GET")
def ask_username(request: Request) -> Response:
    """GET: the form for people who forgot their password."""
    settings = request.application.parts.settings
    page = {
        "action": own_url(request, "forgotten_password"),
        "csrf_token": stranger_token(request),
        "is_sent": read_page_query(request).get("sent") is not None,
        "minutes": minutes(settings.password_link_lifetime),
        "signed_in": None,
    }
    return render_page(request, "forgotten_password.jinja2", page)


@view_config(route_name="forgotten_password", request_method="POST")
def send_link(request: Request) -> Response:
    """POST: the same answer for every name. A mail is sent later, so that the answer always takes the same time (T100)."""
    form, _token, _handle = _read_form(request)
    if username := ask_for_link(request.engine, form.get("username") or ""):
        request.application.answer_forgotten(username, request.caller)
    return see_own(request, "forgotten_password", sent="yes")


def _read_form(request: Request) -> tuple[Parameters, str, str]:
    """A form of these pages, its token, and the handle for which the token was made. Raises ForgedForm, PageError."""
    form = read_form_from_here(request)
    token = token_of(form)
    handle = form_handle(request.engine, request.browser, token)
    if handle is None:
        raise ForgedForm
    return form, token, handle


def _choose(
    request: Request, link: str, user: User, csrf_token: str, refusal: PasswordRefused | None = None
) -> Response:
    return _page(
        request,
        csrf_token=csrf_token,
        link=link,
        person_of_link=user,
        is_first=user.password_hash is None,
        problem=refusal.description if refusal else None,
        wrong_field=refusal.field if refusal else None,
    )


def _page(request: Request, **values: Any) -> Response:
    page = {
        "action": own_url(request, "password_link"),
        "csrf_token": "",
        "link": "",
        "asks_link": False,
        "refused": False,
        "person_of_link": None,
        "is_first": False,
        "problem": None,
        "wrong_field": None,
        "error_id": request.error_id,
        "code": None,
        "details": None,
        "signed_in": None,
        **values,
    }
    return render_page(request, "password_link.jinja2", page)
