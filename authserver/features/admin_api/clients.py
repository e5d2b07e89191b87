"""Clients, which may ask for tokens, and their secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from authserver.administration import (
    Act,
    ClientEdit,
    ClientState,
    Edited,
    LastSecret,
    ListEdit,
    Subject,
    TwoLiveSecrets,
    add_client,
    client_with_secrets,
    edit,
    end_secret,
    fitting_metadata,
    live_secrets,
    operators,
    ring,
    rotate_secret,
)
from authserver.api import (
    Client,
    Engine,
    Parameter,
    did_you_mean,
    read_members,
)
from authserver.features.admin_api import problems
from authserver.features.admin_api.ends import ENDED, carry_out
from authserver.features.admin_api.entries import (
    NULL_OR_TIME,
    TIME,
    Answer,
    Call,
    Entry,
    Sent,
    conflict,
    invalid_parameter,
    nothing_there,
    there,
    write_id,
)
from authserver.features.admin_api.paging import etag_of, gathered

READ, WRITE = "authserver:clients:read", "authserver:clients:write"
SCOPES = {
    READ: "See all applications of this server",
    WRITE: "Add, change and disable applications, and give them secrets",
}
LINKS = ("client_uri", "policy_uri", "tos_uri")
# Members that change when the client is used.
USE = ("last_used_at", "state")
MAXIMUM_OVERLAP = 90 * 86_400
TEXTS = {"type": "array", "items": {"type": "string"}}
NULL_OR_TEXT = {"type": ["string", "null"]}

METADATA: Mapping[str, Parameter] = {
    "client_name": Parameter(description="The name that the consent page shows."),
    "redirect_uris": Parameter(description="To which people are sent back (RFC 7591, 2).", schema=TEXTS),
    "grant_types": Parameter(description="The grant types it may use (RFC 7591, 2).", schema=TEXTS),
    "scope": Parameter(description="The scopes it may have, separated by spaces."),
    "token_endpoint_auth_method": Parameter(description="How it proves who it is (RFC 7591, 2)."),
    "application_type": Parameter(
        description="`web` or `native`; unless given, it follows from the redirect URIs.",
        schema={"enum": ["web", "native", None]},
    ),
    "first_party": Parameter(
        description="Whether it is the operator's own.", schema={"type": ["boolean", "null"]}
    ),
    "rotates_refresh_tokens": Parameter(
        description="Whether each use of its refresh token gives a new one.",
        schema={"type": ["boolean", "null"]},
    ),
    **{
        name: Parameter(description="A link on the consent page; https.", schema=NULL_OR_TEXT)
        for name in LINKS
    },
}
SHOWN: Mapping[str, Parameter] = {
    "client_id": Parameter(description="The client.", required=True),
    **{
        name: Parameter(description=member.description, schema=member.schema, required=name not in LINKS)
        for name, member in METADATA.items()
    },
    "response_types": Parameter(
        description="The response types it may use (RFC 7591, 2).", schema=TEXTS, required=True
    ),
    "resources": Parameter(
        description="It may ask only for these resources; empty: for all.", schema=TEXTS, required=True
    ),
    "logo": Parameter(description="The digest of its logo.", schema=NULL_OR_TEXT, required=True),
    "registered_by": Parameter(
        description="Who registered it.", schema={"enum": ["operator", "self"]}, required=True
    ),
    "registered_from": Parameter(
        description="The network from which it registered itself.", schema=NULL_OR_TEXT, required=True
    ),
    "initial_token": Parameter(
        description="The id of the initial access token with which it registered itself.",
        schema=NULL_OR_TEXT,
        required=True,
    ),
    "registration_policy": Parameter(
        description="The registration policy of that token.", schema=NULL_OR_TEXT, required=True
    ),
    "state": Parameter(
        description="Whether it is used.",
        schema={"enum": [str(state) for state in ClientState]},
        required=True,
    ),
    "created_at": Parameter(description="When it was added.", schema=TIME, required=True),
    "last_used_at": Parameter(
        description="When it last got tokens, to the day.", schema=NULL_OR_TIME, required=True
    ),
    "disabled_at": Parameter(
        description="When it was disabled for good.", schema=NULL_OR_TIME, required=True
    ),
    "secrets": Parameter(
        description="Its live secrets: a name for each, and its times.",
        schema={"type": "array", "items": {"type": "object"}},
        required=True,
    ),
}
SECRETS: Mapping[str, Parameter] = {
    "secret": Parameter(description="The name of the secret; it is not the secret itself.", required=True),
    "created_at": Parameter(description="When it was made.", schema=TIME, required=True),
    "last_used_at": Parameter(
        description="When it was last used, to a few minutes.", schema=NULL_OR_TIME, required=True
    ),
    "ends_at": Parameter(description="Until when it is accepted.", schema=NULL_OR_TIME, required=True),
}
SECRET = Parameter(description="Its new secret; it is not shown again.")


def find(call: Call) -> Client:
    """The client of the address, if it is kept here. Raises NothingThere."""
    return there(call.engine.find_kept_client(call.named("client_id")))


def shown(engine: Engine, client: Client) -> dict[str, Any]:
    """A client as the API shows it."""
    return {
        **operators.client(client, engine.now),
        "secrets": operators.secrets(live_secrets(client, engine.now)),
    }


def etag(record: Mapping[str, Any]) -> str:
    """The ETag of a client, which stays the same when the client is used."""
    secrets = [{**secret, "last_used_at": None} for secret in record["secrets"]]
    return etag_of({**record, "secrets": secrets}, without=USE)


def show(call: Call) -> Answer:
    """One client with its secrets (never their text), and its ETag."""
    record = shown(call.engine, find(call))
    return Answer(body=record, etag=etag(record))


def list_clients(call: Call) -> Answer:
    """Clients by id; `search` looks into ids and names, and `state` may be given several times."""
    engine, states = call.engine, call.query.all("state")
    if unknown := [state for state in states if state not in list(ClientState)]:
        raise invalid_parameter(
            "state", f"{unknown[0]} is not a state; expected one of {', '.join(ClientState)}"
        )
    clients, text = engine.stores.clients, call.query.get("search")

    def read(after: tuple[str, ...], limit: int) -> Sequence[Client]:
        if text:
            return clients.search(engine.now, text, after=after[0], limit=limit)
        return clients.page(engine.now, after=after[0], limit=limit)

    return gathered(
        call,
        read,
        lambda client: (client.client_id,),
        lambda client: shown(engine, client),
        fits=(lambda client: client.state(engine.now) in states) if states else None,
    )


def create(call: Call) -> Answer:
    """Register a client. The answer has its secret if it gets one; the secret is not shown again.

    Raises:
        Problem: a member cannot be used, or the administrator does not have the scopes.
        Refusal: registration would refuse the metadata, too.
    """
    engine, sent = call.engine, Sent(call.sent)
    ring.check_known(engine)
    metadata = fitting_metadata(
        name=sent.text("client_name", required=True).strip(),
        redirect_uris=sent.texts("redirect_uris"),
        grant_types=sent.texts("grant_types"),
        scopes=sent.words("scope"),
        auth_method=sent.text("token_endpoint_auth_method", "client_secret_basic"),
        application_type=sent.text("application_type") or None,
        details={link: sent.text(link) or None for link in LINKS},
    )
    client_id = sent.text("client_id") or None
    first_party = sent.flag("first_party", False)
    rotates = sent.flag("rotates_refresh_tokens", True)
    _check_offered(engine, sent, metadata.grant_types, metadata.scopes, metadata.token_endpoint_auth_method)
    sent.end()
    call.administrator.refuse_beyond(metadata.scopes)
    kept = {name: value for name, value in _of_plugins(engine, call.sent).items() if value is not None}
    client, secret = add_client(
        engine,
        replace(metadata, details={**metadata.details, **kept}),
        client_id=client_id,
        first_party=first_party,
        rotates_refresh_tokens=rotates,
    )
    record = shown(engine, client)
    body = record if secret is None else {**record, "client_secret": secret}
    return Answer(body=body, etag=etag(record), location=f"/clients/{write_id(client.client_id)}")


def change(call: Call) -> Answer:
    """Change members of a client, as RFC 7396 merges them.

    Raises:
        Problem: it changed after the caller read it (If-Match), or a member cannot be used.
        Refusal: registration would refuse the metadata, too.
    """
    engine, before = call.engine, find(call)
    call.is_unchanged(etag(shown(engine, before)))
    ring.check_known(engine)
    sent = Sent(call.sent)
    for needed in ("client_name", "grant_types", "token_endpoint_auth_method"):
        if sent.is_null(needed):
            sent.wrong(needed, "It cannot be removed.")
    grant_types, scopes = sent.texts("grant_types"), sent.words("scope")
    auth_method = sent.text("token_endpoint_auth_method") or None
    name = sent.text("client_name") if "client_name" in sent else None
    application_type = sent.text("application_type") or None
    first_party = sent.flag("first_party", False) if "first_party" in sent else None
    rotates = sent.flag("rotates_refresh_tokens", True) if "rotates_refresh_tokens" in sent else None
    redirect_uris = sent.texts("redirect_uris")
    links = {link: sent.text(link) or None for link in LINKS if link in sent}
    _check_offered(engine, sent, grant_types, scopes, auth_method)
    sent.end()
    call.administrator.refuse_beyond((*before.scopes, *scopes))
    edited = edit(
        engine,
        before.client_id,
        ClientEdit(
            name=name,
            redirect_uris=_list("redirect_uris", sent, redirect_uris, before.redirect_uris),
            grant_types=_list("grant_types", sent, grant_types, before.grant_types),
            scopes=_list("scope", sent, scopes, before.scopes),
            auth_method=auth_method,
            application_type=application_type,
            first_party=first_party,
            rotates_refresh_tokens=rotates,
            details={**links, **_of_plugins(engine, call.sent)},
        ),
        before=before,
    )
    return _edited(engine, edited)


def _edited(engine: Engine, edited: Edited) -> Answer:
    record = shown(engine, there(engine.find_kept_client(edited.client.client_id)))
    body: dict[str, Any] = {
        **record,
        "changed": {name: {"from": was, "to": now} for name, (was, now) in edited.changed.items()},
        "asks_again": edited.asks_again,
        "grants_revoked": edited.revoked,
    }
    if edited.secret is not None:
        body["client_secret"] = edited.secret
    return Answer(body=body, etag=etag(record))


def _list(name: str, sent: Sent, values: tuple[str, ...], before: tuple[str, ...]) -> ListEdit:
    """How a list changes: if it was not sent, it stays the same; null or an empty list removes everything."""
    if name not in sent:
        return ListEdit()
    return ListEdit(replaced_by=values) if values else ListEdit(removed=before)


def _check_offered(
    engine: Engine, sent: Sent, grant_types: Iterable[str], scopes: Iterable[str], auth_method: str | None
) -> None:
    """Note values that are not offered here, with a similar one that is."""
    for name, values, known in (
        ("grant_types", grant_types, engine.grant_types),
        ("scope", scopes, engine.scopes),
        ("token_endpoint_auth_method", [auth_method] if auth_method else [], engine.auth_methods),
    ):
        for value in values:
            if value not in known:
                sent.wrong(name, f"{value}: not offered here; {did_you_mean(value, known, '')}")


def _of_plugins(engine: Engine, sent: Mapping[str, Any]) -> dict[str, Any]:
    """The members of plugins, with the values that they store; None for a member that they do not store."""
    own = {name: sent[name] for name in engine.client_metadata if name in sent}
    read = read_members(
        {name: value for name, value in own.items() if value is not None}, engine.client_metadata
    )
    return {name: read.get(name) for name in own}


def known_members(engine: Engine) -> Iterable[str]:
    """The names of the client metadata that plugins of this server store."""
    return engine.client_metadata


def disable(call: Call) -> Answer:
    """Disable a client for good: its grants and tokens end. Raises Problem when nothing is left to end."""
    client = find(call)
    done = carry_out(call.engine, Act(subject=Subject.client(client.client_id), for_good=True))
    if not client.is_enabled and not done.ended:
        raise conflict("It is disabled already.")
    return Answer(body={**shown(call.engine, find(call)), "ended": done.shown()})


def rotate(call: Call) -> Answer:
    """Give a client another secret. The answer has it; it is not shown again.

    The previous secret ends after `overlap` seconds; by default after a day.

    Raises:
        Problem: two secrets are live already, or the client has scopes that the administrator does not have.
    """
    engine, client = call.engine, find(call)
    sent = Sent(call.sent)
    overlap = sent.number("overlap", 86_400, least=0, most=MAXIMUM_OVERLAP)
    sent.end()
    # Whoever has the secret can do everything that the client may do.
    call.administrator.refuse_beyond(client.scopes)
    ring.check_known(engine)
    try:
        secret = rotate_secret(engine, client.client_id, timedelta(seconds=overlap or 0))
    except TwoLiveSecrets as error:
        raise conflict(
            f"{error}: end one of them first, or send the overlap 0, which ends both at once."
        ) from None
    return Answer(
        body={
            "client_id": client.client_id,
            "client_secret": secret,
            "secrets": operators.secrets(live_secrets(find(call), engine.now)),
        }
    )


def list_secrets(call: Call) -> Answer:
    """The live secrets of a client by their handles, never their text, with their times."""
    client = client_with_secrets(call.engine, find(call).client_id)
    return Answer(body={"items": operators.secrets(live_secrets(client, call.engine.now))})


def end(call: Call) -> Answer:
    """End one secret. Raises Problem for the last one, unless `last=true` is sent."""
    client, named = find(call), call.named("secret")
    live = operators.secrets(live_secrets(client, call.engine.now))
    if named not in [secret["secret"] for secret in live]:
        raise nothing_there()
    try:
        end_secret(call.engine, client.client_id, named, last_too=call.flag("last"))
    except LastSecret as error:
        raise conflict(
            f"{error}, and without it the client cannot authenticate: give it another one first, or send last=true."
        ) from None
    return Answer()


ENTRIES = (
    Entry(
        method="GET",
        path="/clients",
        scope=READ,
        summary="List the clients by id. With a state, a page may have fewer than the limit, and there are more.",
        act=list_clients,
        query={
            "search": Parameter(description="A part of the id or the name: ASCII letters in either case."),
            "state": Parameter(description="Only clients in these states; may be repeated.", schema=TEXTS),
        },
        answer=SHOWN,
        listed=True,
        paged=True,
    ),
    Entry(
        method="POST",
        path="/clients",
        scope=WRITE,
        summary="Add a client. Its secret, if it has one, is only in this answer.",
        act=create,
        body={
            **METADATA,
            "client_name": replace(METADATA["client_name"], required=True),
            "client_id": Parameter(description="The id of the client; a new one unless given."),
        },
        open_body=known_members,
        status=201,
        answer={**SHOWN, "client_secret": SECRET},
        problems=(problems.CONFLICT, problems.BEYOND_OWN_SCOPES),
    ),
    Entry(
        method="GET",
        path="/clients/{client_id}",
        scope=READ,
        summary="Show a client.",
        act=show,
        answer=SHOWN,
        conditional=True,
    ),
    Entry(
        method="PATCH",
        path="/clients/{client_id}",
        scope=WRITE,
        summary="Change a client (RFC 7396). Members that are not sent stay the same; null removes a member.",
        act=change,
        body=METADATA,
        open_body=known_members,
        answer={
            **SHOWN,
            "client_secret": SECRET,
            "changed": Parameter(
                description="The old and the new value of each changed member.",
                schema={"type": "object"},
                required=True,
            ),
            "asks_again": Parameter(
                description="Whether people are asked again.", schema={"type": "boolean"}, required=True
            ),
            "grants_revoked": Parameter(
                description="How many grants ended because of this change.",
                schema={"type": "integer"},
                required=True,
            ),
        },
        problems=(problems.CONFLICT, problems.BEYOND_OWN_SCOPES),
        conditional=True,
    ),
    Entry(
        method="POST",
        path="/clients/{client_id}/disable",
        scope=WRITE,
        summary="Disable a client for good: from the next request on it is refused, and all its access ends.",
        act=disable,
        answer={**SHOWN, "ended": ENDED},
        problems=(problems.CONFLICT,),
    ),
    Entry(
        method="GET",
        path="/clients/{client_id}/secrets",
        scope=READ,
        summary="List the live secrets of a client. The texts of the secrets cannot be read.",
        act=list_secrets,
        answer=SECRETS,
        listed=True,
        problems=(problems.CONFLICT,),
    ),
    Entry(
        method="POST",
        path="/clients/{client_id}/secrets",
        scope=WRITE,
        summary="Give a client a new secret. The present one ends after the overlap.",
        act=rotate,
        body={
            "overlap": Parameter(
                description="Seconds for which the present secret is still accepted; a day unless given.",
                schema={"type": ["integer", "null"], "minimum": 0, "maximum": MAXIMUM_OVERLAP},
            )
        },
        status=201,
        answer={
            "client_id": SHOWN["client_id"],
            "client_secret": replace(SECRET, required=True),
            "secrets": SHOWN["secrets"],
        },
        problems=(problems.CONFLICT, problems.BEYOND_OWN_SCOPES),
    ),
    Entry(
        method="DELETE",
        path="/clients/{client_id}/secrets/{secret}",
        scope=WRITE,
        summary="End a secret of a client, from the next request on.",
        act=end,
        query={
            "last": Parameter(
                description="`true`: end it even if it is the last one.", schema={"enum": ["true", "false"]}
            )
        },
        status=204,
        problems=(problems.CONFLICT,),
    ),
)
