"""Pages for operators at `/admin`: they show what exists, what was refused and why, and what needs attention.

They work without JavaScript, are in English, and show no secret. How to add a page:

1. Write `things.py` beside this file, with a function that takes a `Visit` and returns the values of the template:

       def show(visit: Visit) -> Mapping[str, Any]:
           return {"things": visit.engine.stores.things.page(after=visit.get("after"), limit=PAGE)}

2. Write `templates/things.jinja2`: it extends `frame.jinja2` by its full name, as the others do, fills the blocks `title`
   and `page`, and uses the macros of `authserver.web:templates/components.jinja2`, imported `with context`.
3. Add its row at the end of `things.py`:

       PAGES = (
           Page(name="admin_things", path="/admin/things", show=show, template="things.jinja2", entry="Things"),
       )

4. Add `things` to `FAMILIES` below. The order there is that of the navigation.
5. Test what it does in `tests/features/test_console.py`. Other tests check every row: nobody else sees the page, its form
   has a token, and it asks for a recent sign-in.

A page that changes something also has `act`: it calls a function of `authserver.administration`, and returns
`visit.see("admin_things", done="The thing is gone.")`. For wrong input it raises one of `PROBLEMS` (`pages.py`; add the
errors of your functions): then nothing is stored, and the page is shown again with the sentence of the error and with the
typed values (`visit.get(name)`). `BadInput`, one of `PROBLEMS`, is for mistakes that only the page knows. An `act` on a
person calls `visit.check_acts_on(user)`, so that an operator cannot act on somebody with a higher role. `act_role` says who
may act; `visit.may("operate")` hides a button.

The parameters that say what a page is about are in `keys` of its row; the macro `form` sends them, too. An act that ends
something has a page of its own, which first shows how much would end (the macro `confirmation`, and `ends.py`).

If a value may be shown only once, such as a secret, `act` returns the values for the template `result`. Its form has
`visit.new_once()` as the field `once`, and `act` begins with `visit.once()`, so that a reload of that page does not make
another one. If an error has a `member`, that is `visit.wrong` when the form is shown again, and the sentence is shown at
the field (`wrong` of the macro `field`).

Pages link to each other by name: `admin_client` with `client_id`, `admin_person` with `user_id`, `admin_grant` with
`grant_id`, `admin_event` with `event_id`, and their lists `admin_clients`, `admin_people`, `admin_grants`, `admin_audit`.
`admin_end` ends everything of a subject: with `kind`, `name`, and `disable=yes` for a person or client. The links in
`templates/links.jinja2` are plain texts if there is no such page (`visit.has`).

Texts that others wrote go through the filter `visible`. Lists have a limit, and continue after a place (the macro `pager`);
no table is counted as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

from pyramid.config import Configurator

from authserver.api import hookimpl
from authserver.features.console import (
    audit,
    client_forms,
    client_secrets,
    clients,
    grants,
    initial_tokens,
    keys,
    kill_switch,
    limits,
    overview,
    people,
    policies,
    resources,
    settings,
    statistics,
)
from authserver.features.console.access import Access, Role
from authserver.features.console.pages import Page, Refused, refused_view, view_of

FAMILIES = (
    overview,
    clients,
    client_forms,
    client_secrets,
    people,
    grants,
    initial_tokens,
    resources,
    statistics,
    limits,
    keys,
    policies,
    audit,
    kill_switch,
    settings,
)
PAGES: tuple[Page, ...] = tuple(chain.from_iterable(family.PAGES for family in FAMILIES))
_MAXIMUM_AGE = 31_536_000


@dataclass(frozen=True)
class AdminConsole:
    """Serve the pages for operators at `/admin`, to signed-in people in these groups.

    A person in none of the groups gets 404 there. Nobody is in such a group until an operator adds them: `authserver
    user edit NAME --add-group authserver-admins`. A sign-in plugin that sets groups, such as that for LDAP, may also
    add people.

    Attributes:
        read: groups whose members may see everything: clients, people, grants, events and settings.
        operate: groups whose members may also end and help: end grants and sessions, set passwords, lift limits.
        administer: groups whose members may also change clients, resources and keys.
        age_for_reading: for how many seconds after a sign-in somebody may see the pages (0 to 31536000); after that they
            must sign in again. 0: as long as the session lasts.
        age_for_changing: the same for changes. People whom a proxy signs in cannot sign in again with a password: set 0
            for both.
    """

    reasons: ClassVar[Mapping[str, str]] = {"operator-input": "", "role-too-low": ""}

    read: tuple[str, ...] = ()
    operate: tuple[str, ...] = ()
    administer: tuple[str, ...] = ("authserver-admins",)
    age_for_reading: int = 28_800
    age_for_changing: int = 900

    def __post_init__(self) -> None:
        for name in ("age_for_reading", "age_for_changing"):
            if not 0 <= getattr(self, name) <= _MAXIMUM_AGE:
                raise ValueError(f"{name}: 0 to {_MAXIMUM_AGE} seconds")

    @property
    def access(self) -> Access:
        """Which groups may use the pages."""
        return Access(
            groups={
                Role.READ: frozenset(self.read),
                Role.OPERATE: frozenset(self.operate),
                Role.ADMINISTER: frozenset(self.administer),
            },
            age_for_reading=self.age_for_reading,
            age_for_changing=self.age_for_changing,
        )

    @property
    def operator_groups(self) -> Mapping[str, str]:
        """The groups whose members have a role in the console, with what they may do, in words."""
        return dict.fromkeys((*self.read, *self.operate, *self.administer), "use the pages for operators")

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        for page in PAGES:
            view = view_of(page, PAGES, self.access)
            # With this, other methods do not show a person who may not see the page that it exists.
            config.add_endpoint(page.route, view, otherwise=view)
        config.add_exception_view(refused_view(PAGES), context=Refused)
