"""Compares declarations with the database and checks them by the rules of registration; writes nothing.

A plan is made twice: to show it, and again in the transaction that applies it (`declarations.apply`). If the two
differ, somebody changed something meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC
from typing import Any

from authserver.engine import issuers, resources, uris
from authserver.engine.clients import editing, initial_tokens
from authserver.engine.clients.client_metadata import members, read_metadata, with_metadata
from authserver.engine.clients.initial_tokens import BadInitialToken
from authserver.engine.clients.logos import read_logo
from authserver.engine.clients.registration import check_new_client, new_client
from authserver.engine.clients.secrets import (
    MAXIMUM_LIVE,
    MINIMUM_CLIENT_SECRET,
    live_secrets,
    matching,
    may_be_secret,
    needs_secret,
)
from authserver.engine.context import Engine
from authserver.engine.declarations.differences import Difference, declared_limits, in_the_ini
from authserver.engine.declarations.forms import (
    DeclaredClient,
    DeclaredInitialToken,
    DeclaredIssuer,
    DeclaredResource,
    Reference,
)
from authserver.engine.declarations.plan import ENDING, Action, Declared, Manner, Path, Plan, Problem, Step
from authserver.engine.errors import InvalidTarget, Refusal
from authserver.engine.issuer_registry import from_setting
from authserver.engine.issuers import BadIssuer
from authserver.engine.offered import BadSetting, check_limit, check_scope
from authserver.engine.rates import adjustable
from authserver.engine.records import (
    NOTHING,
    Client,
    ClientMetadata,
    InitialAccessToken,
    InitialTokenState,
    RegisteredBy,
    Resource,
    is_address,
)
from authserver.engine.resource_registry import described
from authserver.engine.resources import BadResource
from authserver.engine.setting_records import Declaration, DeclaredKind, StoredSetting
from authserver.ini import did_you_mean
from authserver.limits import MAXIMUM_CLIENT_SECRET
from authserver.settings import Secret, scope_problems

_GOING = (
    "it was removed, and some of its grants have not ended yet: take it out, and run `authserver apply --prune` first, "
    "which ends them"
)


class BadDeclaration(Exception):
    """Why a declaration cannot be applied, as a sentence; `members` is the path to it in the form."""

    def __init__(self, text: str, *members: str) -> None:
        super().__init__(text)
        self.members = members


def plan_of(
    engine: Engine, declared: Declared, manner: Manner, *, plugins: Mapping[str, object] = NOTHING
) -> Plan:
    """Compare the declarations with the database.

    Args:
        plugins: by name, those that are loaded.
    """
    planning = _Planning(engine, declared, manner, plugins)
    planning.run()
    return planning.plan


class _Planning:
    """One comparison."""

    def __init__(
        self, engine: Engine, declared: Declared, manner: Manner, plugins: Mapping[str, object]
    ) -> None:
        # This includes scopes and limits that other processes changed meanwhile.
        engine.offered.take_over(engine.stores)
        self.engine = replace(engine, scopes=engine.offered.scopes())
        self.forms = declared.forms
        self.declared = declared
        self.manner = manner
        self.plugins = plugins
        marks = engine.stores.declarations.list()
        self.tokens = {token.token_id: token for token in engine.stores.initial_tokens.list()}
        self.marks = {(mark.kind, mark.name): mark for mark in marks}
        self.settings = {(each.kind, each.name): each for each in engine.stores.stored_settings.list()}
        self.steps: list[Step] = []
        self.problems: list[Problem] = []
        # The clients and resources as they would be after the plan.
        self.clients: dict[str, Client | None] = {}
        self.meant: set[tuple[DeclaredKind, str]] = set()
        self.left: list[tuple[DeclaredKind, str]] = []
        self.elsewhere: Sequence[Difference] = ()

    @property
    def plan(self) -> Plan:
        return Plan(
            steps=tuple(self.steps),
            scopes=self.engine.scopes,
            elsewhere=tuple(self.elsewhere),
            problems=tuple(self.problems),
            left=tuple(self.left),
        )

    def run(self) -> None:
        with self._problems(()):
            self.elsewhere = in_the_ini(self.engine, self.forms, self.plugins)
        self._scopes()
        self._limits()
        for client_id, client in sorted(self.forms.clients.items()):
            with self._problems((DeclaredKind.CLIENT, client_id)):
                self._client(client_id, client)
        self._resources()
        for name, issuer in sorted(self.forms.issuers.items()):
            with self._problems((DeclaredKind.ISSUER, name)):
                self._issuer(name, issuer)
        tokens: dict[str, str] = {}
        for name, token in sorted(self.forms.initial_tokens.items()):
            with self._problems((DeclaredKind.INITIAL_TOKEN, name)):
                self._initial_token(name, token, tokens)
        self._undeclared(DeclaredKind.INITIAL_TOKEN)
        self._undeclared(DeclaredKind.ISSUER)
        self._undeclared(DeclaredKind.CLIENT)
        self._undeclared(DeclaredKind.SCOPE)
        self._undeclared(DeclaredKind.LIMIT)

    @contextmanager
    def _problems(self, path: Path) -> Iterator[None]:
        try:
            yield
        except BadDeclaration as error:
            self.problems.append(Problem(path=(*path, *error.members), text=str(error)))
        except Refusal as error:
            self.problems.append(Problem(path=path, text=error.description))
        except BadIssuer as error:
            members = (error.member,) if error.member in DeclaredIssuer.__dataclass_fields__ else ()
            self.problems.append(Problem(path=(*path, *members), text=str(error)))
        except (BadResource, BadInitialToken, BadSetting) as error:
            self.problems.append(Problem(path=path, text=str(error)))

    # ---- Scopes and limits

    def _scopes(self) -> None:
        """Compare scopes; from then on everything else is compared with the scopes after the plan."""
        engine, kind = self.engine, DeclaredKind.SCOPE
        listed = engine.offered.listed_scopes
        known = {**engine.scopes}
        for name, sentence in sorted(self.forms.scopes.items()):
            with self._problems((kind, name)):
                if name in listed:
                    # The present value takes precedence; `in_the_ini` compares it.
                    self.meant.add((kind, name))
                    continue
                check_scope(engine, name, sentence)
                stored = self.settings.get((kind, name))
                self._setting(kind, name, stored.value if stored else None, {"sentence": sentence})
                known[name] = sentence
        for name in self._that_leave(kind):
            if name not in listed:
                known.pop(name, None)
        if problems := scope_problems(known, engine.settings.maximum_request):
            self.problems.append(Problem(path=(kind,), text=problems[0]))
        self.engine = replace(engine, scopes=known)

    def _limits(self) -> None:
        plugins, kind = adjustable(self.plugins.values()), DeclaredKind.LIMIT
        if not plugins:
            # They are compared by `in_the_ini`.
            self.meant.update((kind, name) for name in self.forms.limits)
            return
        known = declared_limits(self.plugins)
        for name, limit in sorted(self.forms.limits.items()):
            with self._problems((kind, name)):
                check_limit(plugins, name, asdict(limit))
                was = asdict(known[name]) if name in known else None
                self._setting(kind, name, was, asdict(limit))

    def _setting(
        self, kind: DeclaredKind, name: str, was: Mapping[str, Any] | None, value: Mapping[str, Any]
    ) -> None:
        """Compare a scope or limit with its value in the store or else in the INI."""
        mark, before = self._mark(kind, name), self.settings.get((kind, name))
        if mark is not None and mark.references == ENDING and before is None:
            raise BadDeclaration(_GOING)
        known = was or {}
        changes = {
            member: (known.get(member), each) for member, each in value.items() if known.get(member) != each
        }
        after = StoredSetting(kind=kind, name=name, value=value, changed_at=self.engine.now)
        self.steps += self._step(
            kind, name, changes, mark, is_new=before is None and bool(changes), before=was, after=after
        )

    # ---- Clients

    def _client(self, client_id: str, form: DeclaredClient) -> None:
        engine, path = self.engine, (DeclaredKind.CLIENT, client_id)
        if is_address(client_id):
            raise BadDeclaration(
                "a client that is known by its address cannot be declared: `authserver client pin` stores it"
            )
        mark = self._mark(*path)
        self.clients[client_id] = None
        metadata = _metadata(engine, form)
        secret, content = (
            self.declared.secrets.get((*path, "secret")),
            self.declared.files.get((*path, "logo")),
        )
        _check_secret(metadata, form, secret)
        before = self._client_before(client_id)
        if before is None:
            check_new_client(
                engine,
                metadata,
                client_id=client_id,
                rotates_refresh_tokens=form.rotates_refresh_tokens,
                logo=content or b"",
            )
        logo = read_logo(content) if content is not None else None
        base = before or new_client(engine, client_id, RegisteredBy.OPERATOR)
        after = replace(
            with_metadata(base, metadata),
            first_party=form.first_party,
            rotates_refresh_tokens=form.rotates_refresh_tokens,
            logo=logo.digest if logo else base.logo,
        )
        if before is None:
            changes = {name: (None, value) for name, value in members(after).items() if value}
        else:
            changes = dict(editing.differences(before, after))
            if changes:
                editing.check(engine, after)
        self.clients[client_id] = after
        changes |= self._secret_change(before, secret, form.secret)
        has_none = form.secret is None and not live_secrets(after, engine.now)
        self.steps += self._step(
            *path,
            changes,
            mark,
            references=_references(secret=form.secret, logo=form.logo),
            # A client that registered itself is never removed because files no longer name it.
            may_be_adopted=not after.is_self_registered,
            is_new=before is None,
            before=before,
            after=after,
            note=f"It has no secret: `authserver client rotate-secret {client_id}` makes one, and shows it once."
            if has_none and needs_secret(after.auth_method)
            else "",
            metadata=metadata,
            secret=secret if "secret" in changes else None,
            logo=logo,
        )

    def _client_before(self, client_id: str) -> Client | None:
        """The present client, if it exists. Raises BadDeclaration if it cannot be declared."""
        client = self.engine.stores.clients.find(client_id, self.engine.now)
        if client is None and self.engine.find_client_elsewhere(client_id) is not None:
            raise BadDeclaration("this client belongs to a plugin: change it there")
        if client is not None and not client.is_enabled:
            raise BadDeclaration(
                "it is disabled for good: take it out of the file, or declare another client id"
            )
        return client

    def _secret_change(
        self, before: Client | None, secret: Secret | None, reference: Reference | None
    ) -> dict[str, tuple[Any, Any]]:
        """The change of the secret, in words that do not reveal it; empty if the client has this one."""
        if secret is None:
            return {}
        live = live_secrets(before, self.engine.now) if before else ()
        if before is None or not live:
            return {"secret": (None, str(reference))}
        found = matching(self.engine, before, before.client_id, secret.value)
        if found is not None and found.expires_at is None:
            return {}
        if found is None and self.manner.overlap and len(live) >= MAXIMUM_LIVE:
            raise BadDeclaration(
                f"it has two live secrets already, and neither is this one: `authserver client secrets {before.client_id}` "
                "shows when one ends; wait for that, or end both at once with --overlap 0",
                "secret",
            )
        return {"secret": ("the same, which ends soon" if found else "another", str(reference))}

    # ---- Resources

    def _resources(self) -> None:
        engine = self.engine
        forms: dict[str, tuple[str, DeclaredResource]] = {}
        for uri, form in sorted(self.forms.resources.items()):
            with self._problems((DeclaredKind.RESOURCE, uri)):
                try:
                    canonical = uris.canonical_resource(uri)
                except InvalidTarget:
                    raise BadDeclaration(
                        "expected an absolute URI without a fragment, such as https://api.example.com/"
                    ) from None
                if canonical in forms:
                    raise BadDeclaration(f"it is the same resource as {forms[canonical][0]}")
                forms[canonical] = (uri, form)
                self.meant.add((DeclaredKind.RESOURCE, canonical))
        steps = len(self.steps)
        self._undeclared(DeclaredKind.RESOURCE)
        gone = {step.before.form for step in self.steps[steps:] if step.before}
        freed = gone | {canonical for canonical, (_, form) in forms.items() if not form.default}
        clients = {**self.clients, **dict.fromkeys(self._that_leave(DeclaredKind.CLIENT))}
        found: list[Step] = []
        for canonical, (uri, form) in forms.items():
            with self._problems((DeclaredKind.RESOURCE, uri)):
                mark = self._mark(DeclaredKind.RESOURCE, canonical)
                before = engine.stores.resources.find(canonical)
                if before is None and mark is not None and mark.references == ENDING:
                    raise BadDeclaration(_GOING)
                after = Resource(
                    form=canonical,
                    uri=uri,
                    name=form.name.strip(),
                    scopes=None if form.scopes is None else tuple(dict.fromkeys(form.scopes)),
                    token_format=form.token_format,
                    token_lifetime=form.token_lifetime,
                    is_default=form.default,
                    introspecting_clients=tuple(dict.fromkeys(form.introspecting_clients)),
                    created_at=before.created_at if before else engine.now,
                )
                resources.check(engine, after, clients=clients, freed=freed)
                changes: dict[str, tuple[Any, Any]]
                if before is None:
                    changes = {name: (None, value) for name, value in described(after).items() if value}
                else:
                    changes = dict(resources.differences(before, after))
                found += self._step(
                    DeclaredKind.RESOURCE,
                    canonical,
                    changes,
                    mark,
                    is_new=before is None,
                    before=before,
                    after=after,
                )
        # The previous default must lose that flag before another resource gets it.
        self.steps += sorted(found, key=lambda step: step.after.is_default)

    def _that_leave(self, kind: DeclaredKind) -> Sequence[str]:
        """The clients and scopes that the plan removes, which nothing else may name."""
        declared = getattr(self.forms, kind)
        return [
            name
            for (of_kind, name), mark in self.marks.items()
            if self.manner.prune
            and of_kind is kind
            and mark.of_set == self.manner.of_set
            and name not in declared
        ]

    # ---- Issuers of assertions

    def _issuer(self, name: str, form: DeclaredIssuer) -> None:
        kind = DeclaredKind.ISSUER
        mark, setting = self._mark(kind, name), self.settings.get((kind, name))
        before = from_setting(setting) if setting else None
        if mark is not None and mark.references == ENDING:
            raise BadDeclaration(_GOING)
        keys = self.declared.files.get((kind, name, "jwks"), b"")
        # An operator who disabled it by hand had a reason.
        after = replace(form.as_entry(name, _text(keys)), is_enabled=before is None or before.is_enabled)
        gone = dict.fromkeys(self._that_leave(DeclaredKind.CLIENT))
        meant = {of_name for of_kind, of_name in self.meant if of_kind is DeclaredKind.RESOURCE}
        issuers.check(self.engine, after, clients={**self.clients, **gone}, resources=meant)
        changes: dict[str, tuple[Any, Any]]
        if before is None:
            changes = {member: (None, value) for member, value in issuers.described(after).items() if value}
        else:
            changes = dict(issuers.differences(before, after))
        self.steps += self._step(
            kind,
            name,
            changes,
            mark,
            references=_references(jwks=form.jwks),
            is_new=before is None,
            before=before,
            after=after,
        )

    # ---- Initial access tokens

    def _initial_token(self, name: str, form: DeclaredInitialToken, tokens: dict[str, str]) -> None:
        engine = self.engine
        mark = self._mark(DeclaredKind.INITIAL_TOKEN, name)
        secret = self.declared.secrets[DeclaredKind.INITIAL_TOKEN, name, "token"]
        if not initial_tokens.may_be_token(secret.value):
            raise BadDeclaration(
                f"there is no initial access token at {form.token}: make one with `authserver initial-token generate`",
                "token",
            )
        if (other := tokens.setdefault(secret.value, name)) != name:
            raise BadDeclaration(f"it is the same token as that of {other}", "token")
        initial_tokens.check_policy(self.plugins.values(), form.policy)
        initial_tokens.check_note(form.note)
        expires_at = form.expires_at.astimezone(UTC)
        before = initial_tokens.find(engine, secret.value)
        replaced = self._token_before(mark, secret)
        if before is None:
            if expires_at <= engine.now:
                raise BadDeclaration("it has ended already", "expires_at")
            after = None
            changes: dict[str, tuple[Any, Any]] = {
                "token": ("another" if replaced else None, str(form.token)),
                "policy": (None, form.policy),
                "uses": (None, form.uses),
                "expires_at": (None, expires_at.isoformat()),
                "note": (None, form.note or None),
            }
            changes = {member: pair for member, pair in changes.items() if pair != (None, None)}
        elif before.state(engine.now) is InitialTokenState.REVOKED:
            raise BadDeclaration(f"the token at {form.token} was revoked: put another one there", "token")
        else:
            after = replace(before, policy=form.policy, uses=form.uses, expires_at=expires_at, note=form.note)
            changes = dict(initial_tokens.differences(before, after))
            if replaced:
                changes["token"] = ("another", str(form.token))
        self.steps += self._step(
            DeclaredKind.INITIAL_TOKEN,
            name,
            changes,
            mark,
            target=before.token_id if before else "",
            references=_references(token=form.token),
            is_new=before is None,
            before=before,
            after=after or form,
            replaced=replaced,
            secret=None if before else secret,
        )

    def _token_before(self, mark: Declaration | None, secret: Secret) -> InitialAccessToken | None:
        """The live token of this name, if another is declared now."""
        if mark is None:
            return None
        found = self.tokens.get(mark.target)
        if (
            found is None
            or found.revoked_at is not None
            or found == initial_tokens.find(self.engine, secret.value)
        ):
            return None
        return found

    # ---- Marks

    def _mark(self, kind: DeclaredKind, name: str) -> Declaration | None:
        """The mark of this record, if this set made it before. Raises BadDeclaration if another set did."""
        self.meant.add((kind, name))
        mark = self.marks.get((kind, name))
        if mark is not None and mark.of_set != self.manner.of_set:
            raise BadDeclaration(
                f"it belongs to the set {mark.of_set}: take it out of one of the two, or name that set with --set"
            )
        return mark

    def _step(
        self,
        kind: DeclaredKind,
        name: str,
        changes: dict[str, tuple[Any, Any]],
        mark: Declaration | None,
        *,
        target: str | None = None,
        references: Mapping[str, Any] = NOTHING,
        is_new: bool,
        may_be_adopted: bool = True,
        before: Any,
        **more: Any,
    ) -> Sequence[Step]:
        """The step that adds or changes something and stores its mark; none if nothing changes.

        Args:
            mark: the present mark.
            target: the target of the mark, if it is not the name.
            more: further attributes of the step.
        """
        kept = self._kept(
            kind,
            name,
            name if target is None else target,
            references,
            mark,
            is_new=is_new,
            adopt=self.manner.adopt and may_be_adopted,
            changes=changes,
        )
        if not changes:
            return ()
        action = Action.CHANGE if before or more.get("replaced") else Action.ADD
        return (Step(kind=kind, name=name, action=action, changes=changes, before=before, mark=kept, **more),)

    def _kept(
        self,
        kind: DeclaredKind,
        name: str,
        target: str,
        references: Mapping[str, Any],
        mark: Declaration | None,
        *,
        is_new: bool,
        adopt: bool,
        changes: dict[str, tuple[Any, Any]],
    ) -> Declaration | None:
        """The mark to store, whose difference is added to `changes`; None if the present mark remains."""
        made = Declaration(
            kind=kind,
            name=name,
            target=target,
            of_set=self.manner.of_set,
            references=references,
            made_at=self.engine.now,
        )
        if is_new:
            return made
        if mark is None:
            if not adopt:
                return None
            changes["declared"] = (None, f"in the set {self.manner.of_set}")
            return made
        if mark.references == references and mark.target == target:
            return None
        for member in sorted({*mark.references, *references}):
            was, now = (_shown(each.get(member)) for each in (mark.references, references))
            if was != now:
                changes.setdefault(f"{member}_is_at", (was, now))
        return made

    def _undeclared(self, kind: DeclaredKind) -> None:
        """The records that this set made before and no longer declares."""
        for (of_kind, name), mark in sorted(self.marks.items()):
            if of_kind is not kind or mark.of_set != self.manner.of_set or (kind, name) in self.meant:
                continue
            if not self.manner.prune:
                self.left.append((kind, name))
                continue
            before, action = self._end_of(mark)
            self.steps.append(Step(kind=kind, name=name, action=action, before=before, mark=mark))

    def _end_of(self, mark: Declaration) -> tuple[Any, Action]:
        stores = self.engine.stores
        match mark.kind:
            case DeclaredKind.CLIENT:
                client = stores.clients.find(mark.target, self.engine.now)
                if client and client.is_enabled:
                    return client, Action.DISABLE
                return client, Action.END if mark.references == ENDING else Action.FORGET
            case DeclaredKind.RESOURCE:
                resource = stores.resources.find(mark.target)
                return resource, Action.REMOVE if resource else Action.END
            case DeclaredKind.INITIAL_TOKEN:
                token = self.tokens.get(mark.target)
                return token, Action.REVOKE if token and token.revoked_at is None else Action.FORGET
            case DeclaredKind.SCOPE:
                setting = self.settings.get((mark.kind, mark.name))
                return setting, Action.REMOVE if setting else Action.END
            case DeclaredKind.LIMIT:
                setting = self.settings.get((mark.kind, mark.name))
                return setting, Action.REVOKE if setting else Action.FORGET
            case DeclaredKind.ISSUER:
                setting = self.settings.get((mark.kind, mark.name))
                going = Action.END if mark.references == ENDING else Action.REMOVE
                return setting, going if setting else Action.FORGET


def default_grant_types(redirect_uris: Sequence[str]) -> tuple[str, ...]:
    """The grant types of a client that declares none."""
    return ("authorization_code", "refresh_token") if redirect_uris else ("client_credentials",)


# The members of a client that only pages and operators see.
DETAILS = ("client_uri", "policy_uri", "tos_uri", "logo_uri", "contacts", "software_id", "software_version")


def _metadata(engine: Engine, form: DeclaredClient) -> ClientMetadata:
    """What a client is to be registered with. Raises BadDeclaration, and InvalidClientMetadata and InvalidRedirectUri."""
    grant_types = form.grant_types
    if grant_types is None:
        grant_types = default_grant_types(form.redirect_uris)
    known: Sequence[tuple[str, Sequence[str], Mapping[str, Any] | Sequence[str]]] = (
        ("grant_types", grant_types, engine.grant_types),
        ("scopes", form.scopes, engine.scopes),
        ("token_endpoint_auth_method", (form.token_endpoint_auth_method,), engine.auth_methods),
        ("metadata", tuple(form.metadata), engine.client_metadata),
    )
    for member, given, offered in known:
        for value in given:
            if value not in offered:
                raise BadDeclaration(f"{value}: not offered here; {did_you_mean(value, offered, '')}", member)
    details = {name: value for name in DETAILS if (value := _plain(getattr(form, name)))}
    sent = {
        "client_name": form.client_name,
        "redirect_uris": list(form.redirect_uris),
        "grant_types": list(grant_types),
        "scope": " ".join(form.scopes),
        "token_endpoint_auth_method": form.token_endpoint_auth_method,
        "application_type": form.application_type,
        **details,
        **form.metadata,
    }
    if not form.client_name.strip():
        raise BadDeclaration("must not be empty", "client_name")
    return read_metadata(
        {name: value for name, value in sent.items() if value not in ("", [], None)}, engine.client_metadata
    )


def _check_secret(metadata: ClientMetadata, form: DeclaredClient, secret: Secret | None) -> None:
    """Raises BadDeclaration for a secret that the client cannot have."""
    if secret is None:
        return
    if not needs_secret(metadata.token_endpoint_auth_method):
        raise BadDeclaration(
            f"a client with {metadata.token_endpoint_auth_method} has no secret: take it out", "secret"
        )
    if not may_be_secret(secret.value):
        raise BadDeclaration(
            f"the text at {form.secret} cannot be a secret: it must have {MINIMUM_CLIENT_SECRET} to {MAXIMUM_CLIENT_SECRET} "
            "characters, and no prefix of another kind of credential",
            "secret",
        )


def _text(content: bytes) -> str:
    """A file as text. Raises BadDeclaration."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadDeclaration("this is no JWK Set: it is not UTF-8", "jwks") from None


def _references(**given: Reference | None) -> dict[str, Any]:
    return {member: reference.as_written() for member, reference in given.items() if reference}


def _shown(reference: Mapping[str, str] | None) -> str | None:
    return None if reference is None else str(Reference(**reference))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
