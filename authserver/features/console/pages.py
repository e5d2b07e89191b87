"""The frame of every page for operators: role, sign-in, form token, errors.

A page is a row of a table (`Page`). All pages have the same view (`view_of`), which checks role, sign-in and form token, so
that no page can forget them.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from pyramid.httpexceptions import HTTPException, HTTPMethodNotAllowed, HTTPNotFound
from pyramid.renderers import render_to_response
from pyramid.response import Response

from authserver.administration import (
    AlreadyExists,
    BadAttributes,
    BadInitialToken,
    BadMoment,
    BadPassword,
    BadResource,
    BadSearch,
    BadUsername,
    CannotChange,
    ChangedMeanwhile,
    ClientUnchanged,
    NoLink,
    NoMail,
    SecretsUnchanged,
    SettingsError,
)
from authserver.api import (
    Engine,
    InvalidRequest,
    Kept,
    OAuthError,
    PageError,
    Parameters,
    Request,
    Route,
    Unsealable,
    User,
    digest,
    from_text,
    new_identifier,
    own_url,
    read_own_form,
    read_page_query,
    see_login,
    see_other,
    session_token,
    to_text,
)
from authserver.features.console.access import Access, Role
from authserver.web.languages import SOURCE, PageLanguage


class BadInput(ValueError):
    """An operator sent something that cannot be used; the message says what to do.

    Attributes:
        member: the name of the wrong field; "" if it is no single field.
    """

    def __init__(self, sentence: str, member: str = "") -> None:
        super().__init__(sentence)
        self.member = member


class RoleTooLow(ValueError):
    """An operator may see the page, but may not do this; the message says who may."""


# Errors that mean unusable input of an operator; the message of each says what to do.
PROBLEMS = (
    AlreadyExists,
    BadAttributes,
    BadInitialToken,
    BadInput,
    BadMoment,
    BadPassword,
    BadResource,
    BadSearch,
    BadUsername,
    CannotChange,
    ChangedMeanwhile,
    ClientUnchanged,
    NoLink,
    NoMail,
    OAuthError,
    RoleTooLow,
    SecretsUnchanged,
    SettingsError,
)
TEMPLATES = "authserver.features.console:templates"
_NOTICE = "notice-of-operator"
# The kind of the small records (`Kept`) of sent forms that create something. They live long, because browsers may reload a
# page after days.
_FORM = "console-form"
_REMEMBERED = timedelta(days=30)
# The parameter in the address of a page with the sealed sentence about what was just done.
_DONE = "done"

Show = Callable[["Visit"], Mapping[str, Any]]
Act = Callable[["Visit"], "Mapping[str, Any] | Response"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page: one address, who may see it, and who may send its form.

    Attributes:
        name: the name of its route, which begins with `admin_`; the token of its form is bound to it.
        path: the path below the issuer, without placeholders; the query says what the page is about.
        show: returns the values of its template, for GET; a value `status` is the status of the answer.
        template: its template in the folder `templates`, which extends `frame.jinja2`.
        role: the lowest role that may see it.
        act: does what its form asks for, for POST. It returns `Visit.see(…)`, or the values of a page with something that
            cannot be shown again, such as a secret. None: the page has no form.
        act_role: the lowest role that may send the form.
        keys: the names of the parameters that say what the page is about. They are in its address and in its form, and are
            kept when somebody has to sign in again.
        entry: its label in the navigation; "" for a page that is only linked from others.
        below: the name of the page that is marked in the navigation while this one is shown; "" for the page itself.
        result: the template for the values that `act` returns; "" for `template`.
        files: whether its form may have files (`Visit.file`).
    """

    name: str
    path: str
    show: Show
    template: str
    role: Role = Role.READ
    act: Act | None = None
    act_role: Role = Role.OPERATE
    keys: tuple[str, ...] = ()
    entry: str = ""
    below: str = ""
    result: str = ""
    files: bool = False

    @property
    def route(self) -> Route:
        """The route of the page; POST is allowed only if the page has `act`."""
        methods = ("GET", "POST") if self.act else ("GET",)
        return Route(self.name, self.path, methods, personal=True, administers=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request of an operator for a page; the functions of the page get it.

    Attributes:
        sent: the parameters of the address, or of the form.
        problem: why the form was refused, if it is shown again.
        wrong: the name of the wrong field, if the error has one as its `member`.
    """

    request: Request
    page: Page
    person: User
    role: Role
    access: Access
    sent: Parameters = field(repr=False)
    problem: str = ""
    wrong: str = ""

    @property
    def engine(self) -> Engine:
        """The engine, in the transaction of this request."""
        return self.request.engine

    @property
    def application(self) -> Any:
        """The parts of the server (`authserver.app.Application`)."""
        return self.request.application

    def get(self, name: str) -> str:
        """The value that was sent under this name, stripped; "" if there is none. Raises InvalidRequest for two."""
        return (self.sent.get(name) or "").strip()

    def may(self, role: str) -> bool:
        """Whether the person has this role (`read`, `operate` or `administer`), so that a button makes sense."""
        return self.role >= Role[role.upper()]

    def begin(self) -> AbstractContextManager[Engine]:
        """An engine in a transaction of its own, for work in batches, which stays done even if this request fails."""
        caller = replace(self.request.caller, actor=f"user:{self.person.user_id}")
        return self.request.application.begin(caller=caller)

    def role_of(self, user: User) -> Role | None:
        """The role of a user in these pages; None if the user has no role."""
        return self.access.role_of(user)

    def may_act_on(self, user: User) -> bool:
        """Whether the operator may change the password and groups of this user, who must not have a higher role."""
        return (self.role_of(user) or 0) <= self.role

    def check_acts_on(self, user: User) -> None:
        """Raise RoleTooLow for a user with a higher role: by acting as this user, the operator would get that role."""
        if not self.may_act_on(user):
            raise RoleTooLow("This person has a higher role than you. Ask somebody who has it, too.")

    def check_may(self, role: str) -> None:
        """Raise RoleTooLow if the operator does not have this role, for a part of a page that needs a higher one."""
        if not self.may(role):
            raise RoleTooLow(f"This needs the role {role}.")

    def address(self, name: str, /, **query: str | None) -> str:
        """The address of a page with these parameters; empty ones are left out."""
        return own_url(self.request, name, **{key: value for key, value in query.items() if value})

    def has(self, name: str) -> bool:
        """Whether there is a page of this name, for a link to it."""
        return name in self.request.registry.routes

    def token(self, name: str) -> str:
        """The token of a form that is sent to this page."""
        return session_token(self.request, name)

    def all(self, name: str) -> tuple[str, ...]:
        """All values that were sent under a name that several boxes have."""
        return self.sent.all(name)

    def file(self, name: str) -> bytes:
        """The content of the file that was sent under this name; empty if none was. Raises BadInput if it is not a file."""
        try:
            return b64decode(self.sent.get(name) or "", validate=True)
        except ValueError:
            raise BadInput(f"{name}: choose a file", name) from None

    def once(self) -> None:
        """Use up the form, so that nothing is made a second time if it is sent again, as by a reload of its answer.

        The form has `new_once()` as its field `once`.

        Raises:
            BadInput: it was used before.
        """
        used = digest(_FORM, f"{self.page.name} {self.get('once')}")
        record = Kept(
            kind=_FORM, digest=used, created_at=self.engine.now, expires_at=self.engine.now + _REMEMBERED
        )
        if not self.get("once") or not self.engine.stores.kept.add_once(record):
            raise BadInput(
                "This form was sent before, and its result is shown only once. Send it again only to make another one."
            )

    def new_once(self) -> str:
        """A new value for the field `once` of a form that is sent only once."""
        return new_identifier("")

    def see(self, name: str, /, *, done: str = "", **query: str | None) -> Response:
        """Redirect to a page, which says what was done.

        Args:
            done: a sentence without secrets. It is sealed in the address, so that nobody else can make up such a sentence.
        """
        if done:
            sealed = self.engine.ring.seal(done.encode(), purpose=_NOTICE, context=self._session_id)
            query = {**query, _DONE: to_text(sealed)}
        return see_other(self.address(name, **query))

    def done(self) -> str:
        """The sentence about what was just done; "" for none."""
        try:
            sealed = from_text(self.sent.get(_DONE) or "")
            return self.engine.ring.open(sealed, purpose=_NOTICE, context=self._session_id).decode()
        except (OAuthError, Unsealable):
            return ""

    @property
    def _session_id(self) -> str:
        return self.request.browser.session_id or ""


class Refused(PageError):
    """A page cannot be shown, or an act was refused and nothing was done; the page says why."""

    def __init__(self, visit: Visit, problem: Exception) -> None:
        reason = "role-too-low" if isinstance(problem, RoleTooLow) else "operator-input"
        cause = problem if isinstance(problem, OAuthError) else InvalidRequest(str(problem), reason=reason)
        super().__init__(cause)
        self.visit = replace(visit, problem=cause.description, wrong=getattr(problem, "member", ""))


def view_of(page: Page, pages: Sequence[Page], access: Access) -> Callable[[Request], Response]:
    """The view of a page: it checks role, form token and sign-in, in this order, before anything is read or done."""

    def view(request: Request) -> Response:
        user, session = request.browser.user, request.browser.session
        changes = request.method not in ("GET", "HEAD")
        role = access.role_of(user) if user else None
        if user is not None and (role is None or role < (page.act_role if changes else page.role)):
            raise HTTPNotFound()
        if request.method not in (*page.route.methods, "HEAD"):
            raise HTTPMethodNotAllowed(headers={"Allow": ", ".join(page.route.methods)})
        # The form token is checked before a redirect to the sign-in, because a form from another site must have no effect.
        sent = read_own_form(request, files=page.files) if changes else read_page_query(request)
        if user is None or session is None or role is None:
            return see_login(request, page=_back(page, sent, changes))
        if not access.is_recent(session, request.engine.now, changes=changes):
            return see_login(request, page=_back(page, sent, changes), again="yes")
        request.language = PageLanguage(SOURCE)
        visit = Visit(request=request, page=page, person=user, role=role, access=access, sent=sent)
        do: Act = page.act if changes and page.act else page.show
        try:
            found = do(visit)
        except PROBLEMS as problem:
            if isinstance(problem, OAuthError) and problem.status >= 429:
                raise  # too many requests, or a failure of the server
            raise Refused(visit, problem) from problem
        if isinstance(found, Response):
            return found
        template = page.result if changes and page.result else page.template
        return _render(visit, template, found, pages)

    return view


def refused_view(pages: Sequence[Page]) -> Callable[[Refused, Request], Response]:
    """The exception view: the form again with the problem, or else a page with only the problem."""

    def view(refused: Refused, request: Request) -> Response:
        visit = refused.visit
        response: Response | None = None
        if request.method == "POST":
            try:
                response = _render(visit, visit.page.template, visit.page.show(visit), pages)
            except (*PROBLEMS, HTTPException):
                response = None  # the record of the form was deleted, or cannot be shown
        response = response or _render(visit, "problem.jinja2", {}, pages)
        response.status_int = refused.status
        return response

    return view


def _back(page: Page, sent: Parameters, changes: bool) -> str:
    """The page to which a sign-in leads back. After a sent form this is the form, and nothing was done."""
    kept = sent.only(*page.keys) if changes else sent.without(_DONE)
    return f"{page.name}?{kept.encoded()}" if kept.encoded() else page.name


def _render(visit: Visit, template: str, values: Mapping[str, Any], pages: Iterable[Page]) -> Response:
    shown = visit.page.below or visit.page.name
    frame = {
        "visit": visit,
        "problem": visit.problem,
        "done": visit.done() if visit.request.method == "GET" else "",
        "navigation": [
            (page.entry, visit.address(page.name), page.name == shown)
            for page in pages
            if page.entry and visit.role >= page.role
        ],
    }
    response: Response = render_to_response(f"{TEMPLATES}/{template}", {**frame, **values}, visit.request)
    response.status_int = values.get("status", 200)
    return response
