"""Looks up users, and the names of users and clients, for several pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyramid.httpexceptions import HTTPNotFound

from authserver.administration import BadSearch, BadUsername, normalise_username
from authserver.api import User
from authserver.features.console.pages import Visit


def this_person(visit: Visit) -> User:
    """The person whom a page is about, by the parameter `user_id`. Raises HTTPNotFound."""
    user = visit.engine.stores.users.find(visit.get("user_id"))
    if user is None:
        raise HTTPNotFound()
    return user


def user_named(visit: Visit, name: str) -> User | None:
    """The user of this id or name. The id counts first, because the name of a user may be the id of another user."""
    users = visit.engine.stores.users
    if user := users.find(name) if name.startswith("user_") else None:
        return user
    try:
        return users.find_by_name(normalise_username(name))
    except BadUsername:
        return None


def user_id_of(visit: Visit, name: str) -> str:
    """The id of the person with this name; an id is returned itself, even if nobody has it any more. Raises BadSearch."""
    user = user_named(visit, name)
    if user is None and not name.startswith("user_"):
        raise BadSearch(
            f"{name}: there is no such person. Sign-ins under a name that nobody has are found by the event sign_in.refused"
        )
    return user.user_id if user else name


def names_of(
    visit: Visit, client_ids: Iterable[str | None], user_ids: Iterable[str | None]
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The names of these clients and users, by id. It takes two database statements."""
    stores, now = visit.engine.stores, visit.engine.now
    of_users, of_clients = sorted(filter(None, set(user_ids))), sorted(filter(None, set(client_ids)))
    people = stores.users.find_all(of_users) if of_users else ()
    clients = stores.clients.find_all(of_clients, now) if of_clients else ()
    return {each.client_id: each.name for each in clients}, {each.user_id: each.username for each in people}
