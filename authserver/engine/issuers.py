"""Adds, changes, enables and removes trusted issuers of the store. `ending` disables one and ends all grants from it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from authserver.engine import issuer_registry, uris
from authserver.engine.context import AssertionProfile, Engine
from authserver.engine.crypto import strict_json
from authserver.engine.errors import InvalidTarget
from authserver.engine.issuer_registry import as_setting, as_value
from authserver.engine.records import NOTHING, Client, EventType, is_address
from authserver.engine.setting_records import DeclaredKind, TrustedIssuer
from authserver.engine.tokens.assertions import TRUSTED_ALGORITHMS
from authserver.engine.tokens.issuer_keys import keys_in
from authserver.ini import did_you_mean
from authserver.limits import MAXIMUM_JSON, MAXIMUM_URI

# Seconds.
LIFETIMES = (10, 86_400)
MAXIMUM_SKEW = 300


class BadIssuer(Exception):
    """An issuer cannot have these values; the message says why.

    Attributes:
        member: the wrong member of `TrustedIssuer`; "" if it is no single one.
    """

    def __init__(self, sentence: str, member: str = "") -> None:
        super().__init__(sentence)
        self.member = member


def add(engine: Engine, issuer: TrustedIssuer) -> None:
    """Trust an issuer. Raises BadIssuer."""
    check(engine, issuer)
    if engine.stores.stored_settings.hold(DeclaredKind.ISSUER, issuer.issuer) is not None:
        raise BadIssuer(
            f"{issuer.issuer}: it is trusted already; change it with `authserver issuer edit`", "issuer"
        )
    engine.stores.stored_settings.keep(as_setting(issuer, engine.now))
    engine.record(EventType.ISSUER_ADDED, details=described(issuer))


def change(engine: Engine, before: TrustedIssuer, after: TrustedIssuer) -> None:
    """Change an issuer; `before` is the entry as it was read. Raises BadIssuer."""
    check(engine, after)
    _keep(engine, before, after, EventType.ISSUER_CHANGED)


def enable(engine: Engine, before: TrustedIssuer) -> None:
    """Enable a disabled issuer. The grants that came from it before have ended. Raises BadIssuer."""
    check(engine, before)
    _keep(engine, before, replace(before, is_enabled=True), EventType.ISSUER_ENABLED)


def remove(engine: Engine, issuer: str) -> bool:
    """Delete a disabled issuer; False if there is none.

    Raises:
        BadIssuer: it is enabled, so its assertions may be accepted at this moment.
    """
    found = issuer_registry.hold(engine, issuer)
    if found is None or not found.is_stored:
        return False
    if found.is_enabled:
        raise BadIssuer(f"{issuer}: it was enabled meanwhile; nothing was removed")
    engine.stores.stored_settings.remove(DeclaredKind.ISSUER, issuer)
    engine.record(EventType.ISSUER_REMOVED, details=described(found))
    return True


def check(
    engine: Engine,
    issuer: TrustedIssuer,
    *,
    clients: Mapping[str, Client | None] = NOTHING,
    resources: Collection[str] = (),
) -> None:
    """Raises BadIssuer for values that are not allowed.

    Args:
        clients: by id, clients that will be added or changed before the issuer is trusted.
        resources: the canonical forms of resources that will be added before.
    """
    _check_name(engine, issuer)
    check_entry(issuer, engine.assertion_profiles, engine.scopes)
    _check_clients(engine, issuer, clients)
    _check_resources(engine, issuer, resources)


def check_listed(engine: Engine, issuer: TrustedIssuer) -> None:
    """Raises BadIssuer if an issuer of the INI names something that does not exist; the rest was checked at start."""
    _check_clients(engine, issuer, NOTHING)
    _check_resources(engine, issuer, ())


def check_entry(
    issuer: TrustedIssuer, profiles: Mapping[str, AssertionProfile], scopes: Collection[str]
) -> None:
    """The checks of an entry that do not need the store. Raises BadIssuer.

    Args:
        scopes: all scopes of this server.
    """
    name = issuer.issuer
    if not issuer_registry.may_be_issuer(name) or not name.isascii() or " " in name:
        raise BadIssuer(
            f"an issuer is the `iss` of its assertions: up to {MAXIMUM_URI} ASCII characters without spaces",
            "issuer",
        )
    _check_keys(issuer)
    if not issuer.algorithms or not set(issuer.algorithms) <= set(TRUSTED_ALGORITHMS):
        raise BadIssuer(f"it signs with some of {' '.join(TRUSTED_ALGORITHMS)}", "algorithms")
    if not LIFETIMES[0] <= issuer.lifetime <= LIFETIMES[1]:
        raise BadIssuer(f"an assertion lives {LIFETIMES[0]} to {LIFETIMES[1]} seconds at most", "lifetime")
    if not 0 <= issuer.skew <= MAXIMUM_SKEW:
        raise BadIssuer(f"its clock may differ by 0 to {MAXIMUM_SKEW} seconds", "skew")
    for scope in issuer.scopes or ():
        if scope not in scopes:
            raise BadIssuer(f"{scope}: no such scope; {did_you_mean(scope, scopes, '')}", "scopes")
    for member in ("clients", "resources", "scopes"):
        if getattr(issuer, member) == ():
            raise BadIssuer(
                f"without any {member} its assertions could give nothing; disable it instead", member
            )
    _check_profile(profiles, issuer)


def warnings(engine: Engine) -> Iterator[tuple[TrustedIssuer, str]]:
    """Warnings for operators about enabled issuers: the entry of one, and a sentence."""
    if not engine.assertion_profiles:
        return
    for issuer in issuer_registry.all_issuers(engine):
        profile = engine.assertion_profiles.get(issuer.profile)
        if profile is None or not issuer.is_enabled:
            continue
        for sentence in (*_of_entry(engine, issuer, profile), *profile.warnings(issuer)):
            yield issuer, sentence


def _of_entry(engine: Engine, issuer: TrustedIssuer, profile: AssertionProfile) -> Iterator[str]:
    """Which parts of an entry let nothing or everything through."""
    try:
        check_listed(engine, issuer)
    except BadIssuer as bad:
        yield f"{bad.member}: {bad}"
    # Rules of a profile name clients and resources, too.
    if profile.names_client is not None:
        return
    if issuer.clients is None:
        yield "clients: it names none, so each client that is registered for the grant type may present its assertions"
    if issuer.resources is None:
        yield "resources: it names none, so its assertions may give tokens for every resource that policies allow"


def described(issuer: TrustedIssuer) -> dict[str, Any]:
    """The members of an issuer for operators and events.

    Keys are shown by their ids. An option with a table, which may name people, is shown as the number of its lines and a
    digest that shows a change.
    """
    value = dict(as_value(issuer))
    keys = value.pop("jwks")
    return {
        "issuer": issuer.issuer,
        **value,
        "keys": _key_ids(keys) if keys else None,
        "options": {name: _told(option) for name, option in sorted(issuer.options.items())},
    }


def differences(before: TrustedIssuer, after: TrustedIssuer) -> Mapping[str, tuple[Any, Any]]:
    """Each changed member, by its name in `described`: the old and the new value."""
    was, now = described(before), described(after)
    found = {name: (was[name], now[name]) for name in now if was[name] != now[name]}
    if before.jwks != after.jwks and "keys" not in found:
        found["keys"] = (was["keys"], now["keys"])
    return found


def _keep(engine: Engine, before: TrustedIssuer, after: TrustedIssuer, type: EventType) -> None:
    if issuer_registry.hold(engine, before.issuer) != before:
        raise BadIssuer(f"{before.issuer}: it was changed or removed meanwhile; nothing was changed here")
    engine.stores.stored_settings.keep(as_setting(after, engine.now))
    changed = {name: {"from": was, "to": now} for name, (was, now) in differences(before, after).items()}
    engine.record(type, details={**described(after), "changed": changed})


def _check_name(engine: Engine, issuer: TrustedIssuer) -> None:
    name = issuer.issuer
    if name == engine.settings.issuer:
        raise BadIssuer("this server accepts nothing that it signed itself", "issuer")
    listed = engine.listed_issuers.get(name)
    if listed is not None:
        raise BadIssuer(
            f"{name}: the INI names it, in {listed.setting}, and what is there counts; change it there",
            "issuer",
        )


def _check_keys(issuer: TrustedIssuer) -> None:
    if bool(issuer.jwks) == bool(issuer.jwks_uri):
        raise BadIssuer("it has its keys, or the https address where it publishes them", "jwks")
    if issuer.jwks_uri and (problem := uris.fetched_problem(issuer.jwks_uri)):
        raise BadIssuer(f"{issuer.jwks_uri}: {problem}", "jwks_uri")
    if issuer.jwks:
        try:
            keys_in(issuer.jwks.encode())
        except ValueError as error:
            raise BadIssuer(f"its keys cannot be used: {error}", "jwks") from None


def _check_clients(engine: Engine, issuer: TrustedIssuer, clients: Mapping[str, Client | None]) -> None:
    for client_id in issuer.clients or ():
        if is_address(client_id):
            continue  # such a client is known only after its first request
        client = clients[client_id] if client_id in clients else engine.find_kept_client(client_id)
        if client is None or not client.is_enabled:
            raise BadIssuer(
                f"{client_id}: no such client, or it is disabled; see `authserver client list`", "clients"
            )


def _check_resources(engine: Engine, issuer: TrustedIssuer, resources: Collection[str]) -> None:
    named = [("resources", uri) for uri in issuer.resources or ()]
    named += [("default_resource", issuer.default_resource)] if issuer.default_resource else []
    for member, uri in named:
        try:
            form = uris.canonical_resource(uri)
        except InvalidTarget:
            raise BadIssuer(f"{uri}: expected an absolute URI without a fragment", member) from None
        if form not in resources and engine.resources.find(uri) is None:
            raise BadIssuer(f"{uri}: no such resource; register it with `authserver resource add`", member)
    if issuer.default_resource and issuer.resources is not None:
        forms = set(map(uris.resource_form, issuer.resources))
        if uris.resource_form(issuer.default_resource) not in forms:
            raise BadIssuer(
                f"{issuer.default_resource}: it is not among the resources of this issuer", "default_resource"
            )


def _check_profile(profiles: Mapping[str, AssertionProfile], issuer: TrustedIssuer) -> None:
    profile = profiles.get(issuer.profile)
    if profile is None:
        raise BadIssuer(
            f"{issuer.profile}: no plugin here has this profile; {did_you_mean(issuer.profile, profiles, '')}",
            "profile",
        )
    if not strict_json.comes_back(dict(issuer.options)) or (
        len(strict_json.dumps(dict(issuer.options))) > MAXIMUM_JSON
    ):
        raise BadIssuer(f"its options are JSON of up to {MAXIMUM_JSON} bytes", "options")
    try:
        profile.check(issuer)
    except ValueError as error:
        raise BadIssuer(str(error), "options") from None


def _key_ids(text: str) -> list[str]:
    try:
        return [kid or "-" for kid, _ in keys_in(text.encode()).keys]
    except ValueError:
        return []


def _told(option: Any) -> Any:
    if not isinstance(option, Mapping):
        return option
    digest = hashlib.sha256(strict_json.dumps(dict(option))).hexdigest()[:8]
    return f"{len(option)} {'entry' if len(option) == 1 else 'entries'} ({digest})"
