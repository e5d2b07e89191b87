"""GET|POST /account/…: the account pages of signed-in users."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyramid.i18n import TranslationStringFactory
from pyramid.response import Response
from pyramid.view import exception_view_config, view_config

from authserver.engine.consent import may_pass_in_silence
from authserver.engine.errors import PasswordRefused, TooManyRequests
from authserver.engine.people import account
from authserver.engine.people.account import ConnectedApp, OwnSession
from authserver.engine.records import ON_ANOTHER_DEVICE, Grant, User
from authserver.settings import Secret
from authserver.web.authorize import describe_client, named_resources
from authserver.web.devices import device_of
from authserver.web.forms import read_page_query
from authserver.web.pages import own_url, render_page, see_own
from authserver.web.request import Request
from authserver.web.retry_after import minutes, with_retry_after
from authserver.web.session import (
    begin_session,
    device_cookie,
    end_session,
    read_own_form,
    see_login,
    session_token,
)

_ = TranslationStringFactory("authserver")

View = Callable[[Any, Request], Response]

TABS = (
    ("account_apps", _("Applications")),
    ("account_sessions", _("Sessions")),
    ("account_password", _("Password")),
)
# The notices after an act; the address names one of these and cannot have text of its own.
NOTICES: Mapping[str, str] = {
    "disconnected": _("The access of that application has ended, and your consent is deleted."),
    "consent-ended": _("Your consent is deleted. That application must ask you before it gets access again."),
    "revoked": _("That has ended. The application keeps what else you allowed it."),
    "session-ended": _("That session has ended."),
    "others-ended": _("All your other sessions have ended."),
    "nothing-changed": _("Nothing was left to end."),
    "password-changed": _(
        "Your password is changed. Your other sessions have ended, and so has the access of all applications."
    ),
}
MAXIMUM_GRANTS_SHOWN = 50


class TooManyPasswords(TooManyRequests):
    """The current password was guessed too often."""


def for_signed_in(view: View) -> View:
    """A view for a signed-in person; others are sent to sign in first, and come back to it (E-18)."""

    def signed_in_view(context: Any, request: Request) -> Response:
        if request.method == "POST":
            # The form token is checked before any answer: a request from another site has no cookie, and an answer to it
            # must not replace the cookie.
            read_own_form(request)
        if request.browser.user is None:
            return see_login(request, page=request.matched_route.name)
        return view(context, request)

    return signed_in_view


@view_config(route_name="account", request_method="GET", decorator=for_signed_in)
def first_page(request: Request) -> Response:
    """GET /account: the first of its pages."""
    return see_own(request, "account_apps")


@view_config(route_name="account_apps", request_method="GET", decorator=for_signed_in)
def apps(request: Request) -> Response:
    """GET: the applications that have access in this person's name."""
    found = account.connected_apps(request.engine, _person(request)[0])
    chains = Chains(found)
    shown = [_described_app(request, app, index, chains) for index, app in enumerate(found)]
    return account_page(request, "account_apps.jinja2", apps=shown)


@view_config(route_name="account_apps", request_method="POST", decorator=for_signed_in)
def end_access(request: Request) -> Response:
    """POST: end one agreement, or all that the person agreed to for an application.

    It answers with a redirect to the page, which says what ended; a grant of another person counts as unknown (T083).
    """
    form, engine, (user, _id) = read_own_form(request), request.engine, _person(request)
    client_id, grant_id = form.get("disconnect"), form.get("revoke")
    if client_id:
        ended = account.disconnect(engine, user, client_id)
        notice = "disconnected" if ended.grants else "consent-ended" if ended.consents else "nothing-changed"
    elif grant_id:
        ended = account.revoke_grant(engine, grant_id, of=user)
        # With the last grant the consent ends, too.
        notice = "nothing-changed" if not ended.grants else "disconnected" if ended.consents else "revoked"
    else:
        notice = "nothing-changed"
    return _see_again(request, notice)


@view_config(route_name="account_sessions", request_method="GET", decorator=for_signed_in)
def sessions(request: Request) -> Response:
    """GET: the sessions of this person."""
    found = account.own_sessions(request.engine, *_person(request))
    return account_page(request, "account_sessions.jinja2", sessions=list(map(_described_session, found)))


@view_config(route_name="account_sessions", request_method="POST", decorator=for_signed_in)
def end_sessions(request: Request) -> Response:
    """POST: end one session of this person, or all except this one."""
    form, engine, (user, session_id) = read_own_form(request), request.engine, _person(request)
    handle = form.get("session")
    if handle and account.end_session(engine, user, handle):
        return _see_again(request, "session-ended")
    if "others" in form and account.end_other_sessions(engine, user, session_id):
        return _see_again(request, "others-ended")
    return _see_again(request, "nothing-changed")


@view_config(route_name="account_password", request_method="GET", decorator=for_signed_in)
def password(request: Request) -> Response:
    """GET: the form to change the password."""
    return _password_page(request)


@view_config(route_name="account_password", request_method="POST", decorator=for_signed_in)
def change_password(request: Request) -> Response:
    """POST: change the password; every other session ends, and this one continues with another id (I-14).

    Raises:
        PasswordRefused: the current password is wrong, or the new one cannot be used; the form is shown again.
        TooManyPasswords: there were too many attempts; the form says how long to wait.
    """
    form = read_own_form(request)
    current, new, repeated = (
        Secret(form.get(name) or "") for name in ("current_password", "new_password", "repeated")
    )
    try:
        session_id = account.change_password(
            request.engine,
            *_person(request),
            current=current,
            new=new,
            repeated=repeated,
            device_cookie=device_cookie(request),
        )
    except TooManyRequests as refused:
        raise TooManyPasswords(
            refused.description,
            reason=refused.reason,
            retry_after=refused.retry_after,
            leaves_event=refused.leaves_event,
        ) from None
    begin_session(request, session_id)
    return _see_again(request, "password-changed")


@exception_view_config(PasswordRefused)
def refuse_password(refusal: PasswordRefused, request: Request) -> Response:
    """The form again with the problem at its field, as status 400."""
    response = _password_page(request, refusal)
    response.status_int = 400
    return response


@exception_view_config(TooManyPasswords)
def hold_password(refusal: TooManyPasswords, request: Request) -> Response:
    """The form again with the time to wait, as status 429 with `Retry-After`."""
    response = _password_page(request, wait_seconds=refusal.retry_after)
    return with_retry_after(response, refusal)


@view_config(route_name="account_sign_out", request_method="GET", decorator=for_signed_in)
def ask_sign_out(request: Request) -> Response:
    """GET: ask whether to end every session and all access."""
    page = {
        "action": own_url(request, "account_sign_out"),
        "csrf_token": session_token(request, "account_sign_out"),
        "password": own_url(request, "account_password"),
        "sessions": own_url(request, "account_sessions"),
    }
    return render_page(request, "account_sign_out.jinja2", page)


@view_config(route_name="account_sign_out", request_method="POST", decorator=for_signed_in)
def sign_out_everywhere(request: Request) -> Response:
    """POST: end every session and all grants of this person."""
    read_own_form(request)
    account.sign_out_everywhere(request.engine, _person(request)[0])
    end_session(request)
    return render_page(request, "signed_out.jinja2", {"everywhere": True, "signed_in": None})


def _person(request: Request) -> tuple[User, str]:
    """The person who is signed in, which `for_signed_in` has checked, and the id of the session."""
    browser = request.browser
    assert browser.user is not None
    assert browser.session_id is not None
    return browser.user, browser.session_id


def _see_again(request: Request, notice: str) -> Response:
    """A redirect to the same page, which says what was done; a reload of it does not repeat the act."""
    return see_own(request, request.matched_route.name, notice=notice)


def account_page(request: Request, template: str, **values: Any) -> Response:
    """A page of the account of the signed-in user, with links to the others."""
    here = request.matched_route.name
    notice = read_page_query(request).get("notice") if request.method == "GET" else None
    page = {
        "action": own_url(request, here),
        "csrf_token": session_token(request, here),
        "tabs": [
            (label, own_url(request, name), name == here)
            for name, label in (*TABS, *request.registry.account_tabs)
        ],
        "notice": NOTICES.get(notice or ""),
        **values,
    }
    return render_page(request, template, page)


def _password_page(
    request: Request, refusal: PasswordRefused | None = None, *, wait_seconds: int = 0
) -> Response:
    user, _id = _person(request)
    return account_page(
        request,
        "account_password.jinja2",
        has_password=user.password_hash is not None,
        username=user.username,
        problem=refusal.description if refusal else None,
        wrong_field=refusal.field if refusal else None,
        wait_minutes=minutes(wait_seconds),
        error_id=request.error_id,
    )


class Chains:
    """The applications through which each access came: grants derived from a user's grant belong to the user, too."""

    def __init__(self, apps: Sequence[ConnectedApp]) -> None:
        self._grants = {grant.grant_id: grant for app in apps for grant in app.grants}
        self._names = {app.client_id: app.client.name if app.client else app.client_id for app in apps}

    def through(self, *grants: Grant) -> list[list[str]]:
        """The names of the other applications through which access came, in order; one list for each different way.

        A list is empty if the other application has no access any more.
        """
        ways = [self._way(grant) for grant in grants if grant.parent_id is not None]
        return [list(way) for way in dict.fromkeys(ways) if way is not None]

    def _way(self, grant: Grant) -> tuple[str, ...] | None:
        """The names for one grant; None if an application derived it only from its own access."""
        names: list[str] = []
        while grant.parent_id is not None:
            parent = self._grants.get(grant.parent_id)
            if parent is None:
                return tuple(names)
            if parent.client_id != grant.client_id:
                names.insert(0, self._names[parent.client_id])
            grant = parent
        return tuple(names) or None


def _described_app(request: Request, app: ConnectedApp, index: int, chains: Chains) -> dict[str, Any]:
    client = app.client
    return {
        "index": index,
        "client_id": app.client_id,
        # Cut here, with an ellipsis, so that people see that it was cut.
        "client": {**describe_client(request, client), "name": client.name} if client else None,
        "is_enabled": client is None or client.is_enabled,
        "scopes": _sentences(request, app.scopes),
        "resources": named_resources(request, app.resources),
        "consent": _described_consent(request, app),
        "since": app.since,
        "last_used_at": app.last_used_at,
        "let_in_by": app.let_in_by,
        "through": chains.through(*app.grants),
        "on_another_device": any(ON_ANOTHER_DEVICE in grant.details for grant in app.grants),
        "grants": [_described_grant(request, grant, chains) for grant in app.grants[:MAXIMUM_GRANTS_SHOWN]],
        "grants_hidden": max(0, len(app.grants) - MAXIMUM_GRANTS_SHOWN),
    }


def _described_consent(request: Request, app: ConnectedApp) -> dict[str, Any] | None:
    """The remembered scopes that no live grant has, and whether the application can get them without a question."""
    if app.consent is None:
        return None
    client = app.client
    return {
        "scopes": _sentences(request, app.remembered_scopes),
        "resources": named_resources(request, app.consent.resources),
        "agreed_at": app.consent.granted_at,
        "may_be_silent": client is not None
        and client.is_enabled
        and app.consent.is_for(client)
        and may_pass_in_silence(request.engine, client),
    }


def _described_grant(request: Request, grant: Grant, chains: Chains) -> dict[str, Any]:
    return {
        "grant_id": grant.grant_id,
        "scopes": _sentences(request, grant.scopes),
        "resources": named_resources(request, grant.resources),
        "since": grant.created_at,
        "last_used_at": account.last_use(grant),
        "let_in_by": account.let_in_by(grant) if grant.parent_id is None else None,
        "through": chains.through(grant),
        "on_another_device": ON_ANOTHER_DEVICE in grant.details,
    }


def _sentences(request: Request, scopes: tuple[str, ...]) -> list[tuple[str, str]]:
    """Names and sentences as on the consent page; a scope that does not exist any more has only its name."""
    known = request.engine.scopes
    return [(name, known.get(name, "")) for name in scopes]


def _described_session(own: OwnSession) -> dict[str, Any]:
    details = own.session.details
    return {
        "handle": own.handle,
        "is_this": own.is_this,
        "device": device_of(details.get("user_agent", "")),
        "source": details.get("source", ""),
        "authenticated_at": own.session.authenticated_at,
        "last_seen_at": own.session.last_seen_at,
    }
