"""Exports the database as declarations; secrets only as references, if these are known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from authserver.engine import issuer_registry, uris
from authserver.engine.clients.secrets import needs_secret
from authserver.engine.context import Engine
from authserver.engine.declarations.differences import declared_limits, trusted_issuers
from authserver.engine.declarations.forms import (
    DeclaredClient,
    DeclaredInitialToken,
    DeclaredIssuer,
    DeclaredResource,
    Forms,
    Reference,
)
from authserver.engine.declarations.plan import Path
from authserver.engine.declarations.planning import DETAILS, default_grant_types
from authserver.engine.records import NOTHING, Client, InitialAccessToken, InitialTokenState, Resource
from authserver.engine.setting_records import DeclaredKind, TrustedIssuer

KINDS = tuple(item.name for item in fields(Forms))
# How many clients are read at a time.
PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The exported records.

    Attributes:
        forms: the records, as files declare them.
        remarks: facts for a reader of the files, a sentence each, by their path in the forms.
        left_out: how many clients cannot be declared, or were not asked for, by the reason.
    """

    forms: Forms
    remarks: Mapping[Path, tuple[str, ...]]
    left_out: Mapping[str, int]


def export(
    engine: Engine,
    *,
    kinds: Collection[str] = KINDS,
    self_registered: bool = False,
    plugins: Mapping[str, object] = NOTHING,
) -> Exported:
    """The records of these kinds, in a stable order.

    Args:
        kinds: members of `Forms`.
        self_registered: whether clients that registered themselves are among them.
        plugins: by name, those that are loaded.
    """
    return _Exporting(engine, self_registered).run(kinds, plugins)


class _Exporting:
    """One export."""

    def __init__(self, engine: Engine, self_registered: bool) -> None:
        self.engine = engine
        self.self_registered = self_registered
        marks = engine.stores.declarations.list()
        self.references = {(mark.kind, mark.target): mark.references for mark in marks}
        self.token_names = {
            mark.target: mark.name for mark in marks if mark.kind is DeclaredKind.INITIAL_TOKEN
        }
        self.remarks: dict[Path, tuple[str, ...]] = {}
        self.left_out: Counter[str] = Counter()

    def run(self, kinds: Collection[str], plugins: Mapping[str, object]) -> Exported:
        engine = self.engine
        found: dict[str, Any] = {}
        if "clients" in kinds:
            found["clients"] = {client.client_id: self._client(client) for client in self._clients()}
        if "resources" in kinds:
            stored = engine.stores.resources.list()
            found["resources"] = {
                each.uri: _resource(each) for each in sorted(stored, key=lambda each: each.uri)
            }
        if "initial_tokens" in kinds:
            found["initial_tokens"] = dict(sorted(self._initial_tokens()))
        if "scopes" in kinds:
            found["scopes"] = dict(sorted(engine.scopes.items()))
        if "limits" in kinds:
            found["limits"] = dict(sorted(declared_limits(plugins).items()))
        if "issuers" in kinds:
            found["issuers"] = {
                each.issuer: self._issuer(each)
                for each in issuer_registry.all_issuers(engine)
                if each.is_stored
            }
        if "trusted_issuers" in kinds:
            found["trusted_issuers"] = {
                name: tuple(sorted(issuers)) for name, issuers in sorted(trusted_issuers(plugins).items())
            }
        return Exported(forms=Forms(**found), remarks=self.remarks, left_out=dict(self.left_out))

    # ---- Clients

    def _clients(self) -> Iterator[Client]:
        after = ""
        while page := self.engine.stores.clients.page(self.engine.now, after=after, limit=PAGE):
            after = page[-1].client_id
            for client in page:
                why = self._why_not(client)
                if why is None:
                    yield client
                else:
                    self.left_out[why] += 1

    def _why_not(self, client: Client) -> str | None:
        if not client.is_enabled:
            return "disabled"
        if client.is_known_by_address:
            return "pinned by their address"
        if client.is_self_registered and not self.self_registered:
            return "registered by themselves"
        return None

    def _client(self, client: Client) -> DeclaredClient:
        references = self.references.get((DeclaredKind.CLIENT, client.client_id), NOTHING)
        secret, logo = (_reference(references.get(member)) for member in ("secret", "logo"))
        remarks: list[str] = []
        if secret is None and needs_secret(client.auth_method):
            name = _variable(client.client_id, "SECRET")
            remarks.append(
                f'Its secrets are not readable, and stay as they are. Else: secret = {{ env = "{name}" }}'
            )
        if logo is None and client.logo is not None:
            remarks.append('It has a logo, which stays as it is. Else: logo = { file = "PATH" }')
        kept = {name: value for name, value in client.details.items() if name in self.engine.client_metadata}
        for name in sorted(client.details.keys() - kept.keys() - {*DETAILS}):
            remarks.append(f"Its {name} is left out: no plugin keeps it any more.")
        for name in [name for name, value in kept.items() if not _can_be_toml(value)]:
            del kept[name]
            remarks.append(f"Its {name} is left out: it has a null, which TOML cannot say.")
        if remarks:
            self.remarks[DeclaredKind.CLIENT, client.client_id] = tuple(remarks)
        details: dict[str, Any] = {
            name: _frozen(client.details[name]) for name in DETAILS if name in client.details
        }
        grant_types = client.grant_types
        fitting = uris.fitting_application_type(client.redirect_uris)
        return DeclaredClient(
            client_name=client.name,
            redirect_uris=client.redirect_uris,
            grant_types=None if grant_types == default_grant_types(client.redirect_uris) else grant_types,
            scopes=client.scopes,
            token_endpoint_auth_method=client.auth_method,
            secret=secret,
            application_type=None if client.application_type == fitting else client.application_type,  # type: ignore[arg-type]  # the rules of registration know two
            logo=logo,
            first_party=client.first_party,
            rotates_refresh_tokens=client.rotates_refresh_tokens or client.is_public,
            metadata=dict(sorted(kept.items())),
            **details,
        )

    # ---- Initial access tokens

    def _initial_tokens(self) -> Iterator[tuple[str, DeclaredInitialToken]]:
        for token in self.engine.stores.initial_tokens.list():
            if token.state(self.engine.now) in (InitialTokenState.LIVE, InitialTokenState.USED_UP):
                name = self.token_names.get(token.token_id, token.token_id)
                yield name, self._initial_token(name, token)

    def _initial_token(self, name: str, token: InitialAccessToken) -> DeclaredInitialToken:
        references = self.references.get((DeclaredKind.INITIAL_TOKEN, token.token_id), NOTHING)
        reference = _reference(references.get("token"))
        if reference is None:
            reference = Reference(env=_variable(name, "TOKEN"))
            self.remarks[DeclaredKind.INITIAL_TOKEN, name] = ("The token is not readable: put it there.",)
        return DeclaredInitialToken(
            policy=token.policy,
            token=reference,
            expires_at=token.expires_at,
            uses=token.uses,
            note=token.note,
        )

    # ---- Issuers of assertions

    def _issuer(self, issuer: TrustedIssuer) -> DeclaredIssuer:
        path = (DeclaredKind.ISSUER, issuer.issuer)
        reference = _reference(self.references.get(path, NOTHING).get("jwks"))
        remarks: list[str] = []
        if issuer.jwks and reference is None:
            reference = Reference(file=f"{_variable(issuer.issuer, 'JWKS').lower()}.json")
            remarks.append(f"Put its keys there: {issuer.jwks}")
        if not issuer.is_enabled:
            remarks.append("It is disabled, and stays so.")
        if remarks:
            self.remarks[path] = tuple(remarks)
        return DeclaredIssuer(
            profile=issuer.profile,
            jwks_uri=issuer.jwks_uri,
            jwks=reference if issuer.jwks else None,
            algorithms=issuer.algorithms,
            lifetime=issuer.lifetime,
            skew=issuer.skew,
            clients=issuer.clients,
            resources=issuer.resources,
            scopes=issuer.scopes,
            default_resource=issuer.default_resource,
            options=dict(issuer.options),
        )


def _resource(resource: Resource) -> DeclaredResource:
    return DeclaredResource(
        name=resource.name,
        scopes=resource.scopes,
        token_format=resource.token_format,
        token_lifetime=resource.token_lifetime,
        default=resource.is_default,
        introspecting_clients=resource.introspecting_clients,
    )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _reference(written: Mapping[str, str] | None) -> Reference | None:
    return None if written is None else Reference(**written)


def _variable(name: str, what: str) -> str:
    """The name of an environment variable for the secret of this client or token."""
    words = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")
    return f"{words}_{what}" if words[:1].isalpha() else f"{what}_{words}"


def _can_be_toml(value: Any) -> bool:
    match value:
        case None:
            return False
        case dict():
            return all(map(_can_be_toml, value.values()))
        case list() | tuple():
            return all(map(_can_be_toml, value))
        case _:
            return True
