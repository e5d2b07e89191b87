"""People: adds, changes, disables and enables them, and signs them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from authserver.administration import (
    Act,
    BadUsername,
    Subject,
    add_user,
    enable_user,
    normalise_username,
    operators,
)
from authserver.administration import change as change_user
from authserver.api import Parameter, User
from authserver.features.admin_api import problems
from authserver.features.admin_api.ends import ENDED, Done, carry_out
from authserver.features.admin_api.entries import (
    NULL_OR_TIME,
    TIME,
    Answer,
    Call,
    Entry,
    Sent,
    conflict,
    invalid_parameter,
    there,
    write_id,
)
from authserver.features.admin_api.paging import etag_of, gathered

READ, WRITE = "authserver:users:read", "authserver:users:write"
SCOPES = {
    READ: "See all people of this server, with their groups and attributes",
    WRITE: "Add, change and disable people, and sign them out",
}
TEXTS = {"type": "array", "items": {"type": "string"}}
ATTRIBUTES = {"type": "object", "additionalProperties": TEXTS}

SHOWN: Mapping[str, Parameter] = {
    "user_id": Parameter(description="The `sub` of the person's tokens.", required=True),
    "username": Parameter(description="The name that the person types to sign in.", required=True),
    "display_name": Parameter(description="The name that pages and applications show.", required=True),
    "groups": Parameter(description="The groups of the person, for policies.", schema=TEXTS, required=True),
    "attributes": Parameter(description="Facts for policies, by name.", schema=ATTRIBUTES, required=True),
    "created_at": Parameter(description="When the person was added.", schema=TIME, required=True),
    "disabled_at": Parameter(
        description="Since when the person is disabled.", schema=NULL_OR_TIME, required=True
    ),
}
CHANGED: Mapping[str, Parameter] = {
    "display_name": Parameter(
        description="The name that pages and applications show.", schema={"type": ["string", "null"]}
    ),
    "groups": Parameter(
        description="All groups of the person from now on.",
        schema={"type": ["array", "null"], "items": {"type": "string"}},
    ),
    "attributes": Parameter(
        description="The new values of each named attribute; null removes one, the others stay the same (RFC 7396).",
        schema={
            "type": ["object", "null"],
            "additionalProperties": {"type": ["array", "null"], "items": {"type": "string"}},
        },
    ),
}


def find(call: Call) -> User:
    """The person of the address. Raises NothingThere."""
    return there(call.engine.stores.users.find(call.named("user_id")))


def show(call: Call) -> Answer:
    """One user, with its ETag."""
    record = operators.user(find(call))
    return Answer(body=record, etag=etag_of(record))


def list_users(call: Call) -> Answer:
    """Users by user name; `search` is a part of the user or display name, `prefix` is the beginning of the user name."""
    users, wanted = call.engine.stores.users, (call.query.get("search") or "").casefold()
    begins = call.query.get("prefix")
    try:
        prefix = normalise_username(begins) if begins else ""
    except BadUsername as error:
        raise invalid_parameter("prefix", str(error)) from None

    def fits(user: User) -> bool:
        return wanted in user.username.casefold() or wanted in user.display_name.casefold()

    return gathered(
        call,
        lambda after, limit: users.page(after=after[0], prefix=prefix, limit=limit),
        lambda user: (user.username,),
        operators.user,
        fits=fits if wanted else None,
    )


def create(call: Call) -> Answer:
    """Add a user without a password; a link sets one (`password_links`). Raises Problem."""
    sent = Sent(call.sent)
    username = sent.text("username", required=True)
    display_name, groups = sent.text("display_name"), sent.texts("groups")
    attributes = {name: values or () for name, values in sent.lists("attributes").items()}
    sent.end()
    refuse_operators(call, groups)
    user = add_user(
        call.engine, username, None, display_name=display_name, groups=groups, attributes=attributes
    )
    record = operators.user(user)
    return Answer(body=record, etag=etag_of(record), location=f"/users/{write_id(user.user_id)}")


def change(call: Call) -> Answer:
    """Change display name, groups or attributes, as RFC 7396 merges them. Raises Problem."""
    before = find(call)
    call.is_unchanged(etag_of(operators.user(before)))
    sent = Sent(call.sent)
    display_name = sent.text("display_name") if "display_name" in sent else None
    groups = sent.texts("groups") if "groups" in sent else None
    attributes: Mapping[str, tuple[str, ...]] | None = None
    if "attributes" in sent:
        merged = {} if sent.is_null("attributes") else {**before.attributes, **sent.lists("attributes")}
        attributes = {name: values for name, values in merged.items() if values}
    sent.end()
    if groups is not None:
        refuse_operators(call, set(groups) ^ set(before.groups))
    if attributes is not None:
        # Links to set a password go to the mail address, which is an attribute.
        refuse_operators(call, before.groups)
    user = change_user(call.engine, before, display_name=display_name, groups=groups, attributes=attributes)
    record = operators.user(user)
    return Answer(body=record, etag=etag_of(record))


def refuse_operators(call: Call, groups: Iterable[str]) -> None:
    """Refuse an act on these groups if one of them is a group of operators, unless the administrator has all rights.

    Such an act could make somebody an operator, or give the administrator the rights of another operator. Raises Problem.
    """
    if call.operator_groups.intersection(groups):
        # A person in such a group may get every scope of the API, or do the same on the pages of the console.
        call.administrator.refuse_beyond(call.engine.scopes)


def disable(call: Call) -> Answer:
    """Disable a user: sessions, grants and tokens end. Raises Problem when nothing is left to end."""
    user = find(call)
    done = carry_out(call.engine, Act(subject=Subject.user(user), for_good=True))
    if not user.is_enabled and not done.ended:
        raise conflict("The person is disabled already.")
    return _answer(call, done)


def enable(call: Call) -> Answer:
    """Let a disabled user sign in again. Raises Problem when the user is not disabled."""
    user = find(call)
    refuse_operators(call, user.groups)
    ended = enable_user(call.engine, user)
    if ended is None:
        raise conflict("The person is not disabled.")
    return _answer(call, Done(ended=ended))


def sign_out(call: Call) -> Answer:
    """End all sessions and grants of a user, who may sign in again."""
    return _answer(call, carry_out(call.engine, Act(subject=Subject.user(find(call)))))


def _answer(call: Call, done: Done) -> Answer:
    return Answer(body={**operators.user(find(call)), "ended": done.shown()})


ENTRIES = (
    Entry(
        method="GET",
        path="/users",
        scope=READ,
        summary="List people by user name. With a search, a page may have fewer than the limit, and there are more.",
        act=list_users,
        query={
            "search": Parameter(description="A part of the user name or the display name."),
            "prefix": Parameter(
                description="The beginning of the user name; this is fast even with very many people."
            ),
        },
        answer=SHOWN,
        listed=True,
        paged=True,
    ),
    Entry(
        method="POST",
        path="/users",
        scope=WRITE,
        summary="Add a person without a password. Until one is set, the person can sign in only in another way.",
        act=create,
        body={
            "username": Parameter(description="The name that the person types to sign in.", required=True),
            "display_name": CHANGED["display_name"],
            "groups": CHANGED["groups"],
            "attributes": replace(CHANGED["attributes"], description="Facts for policies, by name."),
        },
        status=201,
        answer=SHOWN,
        problems=(problems.CONFLICT, problems.BEYOND_OWN_SCOPES),
    ),
    Entry(
        method="GET",
        path="/users/{user_id}",
        scope=READ,
        summary="Show a person.",
        act=show,
        answer=SHOWN,
        conditional=True,
    ),
    Entry(
        method="PATCH",
        path="/users/{user_id}",
        scope=WRITE,
        summary="Change display name, groups and attributes of a person (RFC 7396). Members that are not sent stay the same.",
        act=change,
        body=CHANGED,
        answer=SHOWN,
        problems=(problems.CONFLICT, problems.BEYOND_OWN_SCOPES),
        conditional=True,
    ),
    Entry(
        method="POST",
        path="/users/{user_id}/disable",
        scope=WRITE,
        summary="Disable a person: from the next request on they cannot sign in, and all their sessions and access end.",
        act=disable,
        answer={**SHOWN, "ended": ENDED},
        problems=(problems.CONFLICT,),
    ),
    Entry(
        method="POST",
        path="/users/{user_id}/enable",
        scope=WRITE,
        summary="Let a disabled person sign in again. Their earlier sessions and access have ended.",
        act=enable,
        answer={**SHOWN, "ended": ENDED},
        problems=(problems.CONFLICT, problems.BEYOND_OWN_SCOPES),
    ),
    Entry(
        method="POST",
        path="/users/{user_id}/sign-out",
        scope=WRITE,
        summary="Sign a person out everywhere. All sessions, grants and remembered consents end.",
        act=sign_out,
        answer={**SHOWN, "ended": ENDED},
    ),
)
