"""The account page with the providers through which a person signs in: add one, and remove one.

A signed-in person adds a provider by signing in there: only so can an identity be joined to an existing account (UP-03).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pyramid.config import Configurator
from pyramid.response import Response

from authserver.api import (
    JoinedIdentity,
    Purpose,
    Request,
    Route,
    User,
    account_page,
    browser_handle,
    identity_handle,
    lead_on,
    let_forms_lead_on,
    read_own_form,
    read_page_query,
    remove_identity,
    see_login,
    see_own,
)
from authserver.api import translatable as _
from authserver.features.upstream.attempts import Attempt
from authserver.features.upstream.pages import ACCOUNT, Pages
from authserver.features.upstream.providers import Provider

ROUTE = Route(
    ACCOUNT,
    "/account/identities",
    ("GET", "POST"),
    personal=True,
    purpose=_("to look after your account"),
)
TAB = _("Ways to sign in")
TEMPLATE = "authserver.features.upstream:templates/identities.jinja2"
# The messages of the page after a change; an address can only choose among these.
NOTICES: Mapping[str, str] = {
    "identity-joined": _("That provider is added. You can sign in through it from now on."),
    "identity-removed": _("That provider is removed. What you did after signing in through it has ended."),
    "nothing-changed": _("Nothing was changed."),
}
# How long ago a person may have signed in who changes the ways to sign in.
RECENTLY = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPage:
    """The view."""

    pages: Pages

    def includeme(self, config: Configurator) -> None:
        config.add_endpoint(ROUTE, self.answer)
        config.add_account_tab(ROUTE.name, TAB)

    def answer(self, request: Request) -> Response:
        """GET and POST /account/identities."""
        # Checked before a person is sent to sign in: a request from another site must have no effect.
        form = read_own_form(request) if request.method == "POST" else None
        user, session = request.browser.user, request.browser.session
        if user is None or session is None:
            return see_login(request, page=ROUTE.name)
        if form is None:
            return self._show(request, user)
        if request.engine.now - session.authenticated_at > RECENTLY:
            return see_login(request, page=ROUTE.name, again="yes")
        if (provider := self.pages.providers.get(form.get("add") or "")) is not None and provider.enabled:
            return self._add(request, user, provider)
        return self._remove(request, user, form.get("remove") or "")

    def _show(self, request: Request, user: User) -> Response:
        joined = request.engine.stores.identities.of_user(user.user_id)
        issuers = {identity.issuer for identity in joined}
        notice = read_page_query(request).get("notice") or ""
        let_forms_lead_on(request)
        return account_page(
            request,
            TEMPLATE,
            notice=NOTICES.get(notice),
            identities=[self._described(identity) for identity in joined],
            may_remove=_may_remove(user, len(joined)),
            has_password=user.password_hash is not None,
            others=[
                {"name": provider.name, "title": provider.title}
                for provider in self.pages.providers.values()
                if provider.enabled and provider.issuer not in issuers
            ],
        )

    def _described(self, identity: JoinedIdentity) -> dict[str, Any]:
        provider = next(
            (each for each in self.pages.providers.values() if each.issuer == identity.issuer), None
        )
        return {
            "title": provider.title if provider else identity.issuer,
            "is_on": provider is not None and provider.enabled,
            "label": identity.label,
            "joined_at": identity.joined_at,
            "key": identity_handle(identity),
        }

    def _add(self, request: Request, user: User, provider: Provider) -> Response:
        """Send the person to the provider, to sign in there."""
        attempt = Attempt(
            provider=provider.name,
            handle=browser_handle(request),
            began_at=request.engine.now.timestamp(),
            joins=user.user_id,
            return_page=ROUTE.name,
        )
        there = self.pages.way_there(request, provider, attempt, Purpose(return_page=ROUTE.name), {})
        return lead_on(request, there)

    def _remove(self, request: Request, user: User, key: str) -> Response:
        joined = request.engine.stores.identities.of_user(user.user_id)
        meant = next((identity for identity in joined if identity_handle(identity) == key), None)
        is_done = (
            meant is not None
            and _may_remove(user, len(joined))
            and remove_identity(request.engine, user, meant.issuer, meant.subject)
        )
        return see_own(request, ROUTE.name, notice="identity-removed" if is_done else "nothing-changed")


def _may_remove(user: User, joined: int) -> bool:
    """Whether the person can still sign in without one of them."""
    return user.password_hash is not None or joined > 1
