"""Puts everything together. Read this first.

`wsgi` is what `pserve` calls; `build` makes the same parts for the command line, without the web.
"""

from __future__ import annotations

import atexit
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyramid_tm
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import ITweens
from pyramid.router import Router
from pyramid.tweens import EXCVIEW
from sqlalchemy.exc import ArgumentError

from authserver import ini as ini_reader
from authserver.background import Background, Following, KeysAhead
from authserver.declaring import issuers as declared_issuers
from authserver.engine import grants, issuers, rates
from authserver.engine.clients import client_metadata
from authserver.engine.clients.authentication import PRESENTATION
from authserver.engine.context import SERVER, AssertionProfile, Caller, Engine, Journal, Parts
from authserver.engine.counting import Counting
from authserver.engine.crypto.jose import ALGORITHMS
from authserver.engine.crypto.sealing import KeyRing
from authserver.engine.errors import QUERY
from authserver.engine.event_seals import Chain, Sealer, chain_of
from authserver.engine.floods import Floods
from authserver.engine.grants import assertion
from authserver.engine.keys import ring, signing_keys
from authserver.engine.keys.following import FollowedSigningKeys
from authserver.engine.letters import Letter, is_mail_on
from authserver.engine.metadata import MetadataCollision, auth_methods, joined
from authserver.engine.offered import FollowedSettings
from authserver.engine.people import password_links
from authserver.engine.ports import StorageUnavailable
from authserver.engine.records import EventType
from authserver.engine.restore.generation import FollowedGeneration
from authserver.engine.setting_records import TrustedIssuer
from authserver.engine.turnstile import Turnstile
from authserver.event_readers import Reader, Reading
from authserver.fetching.fetcher import fetcher_of
from authserver.ini import Loaded
from authserver.mailing import Mailer
from authserver.plugins import listed_resources
from authserver.plugins import loading as plugin_loader
from authserver.plugins.asking import PluginSet
from authserver.plugins.delivering import deliveries
from authserver.plugins.shadow import Shadow
from authserver.plugins.time_limit import LOADING_SECONDS, TimeLimit, TooSlow
from authserver.settings import Settings, SettingsError, key_ring, scope_problems
from authserver.storage import migrate
from authserver.storage.database import Database
from authserver.upkeep import Caretaker
from authserver.web import TWEENS, languages
from authserver.web.processes import Ending, is_started_again
from authserver.web.request import Request, complete
from authserver.web.scope_list import is_in_group, prefix_of
from authserver.web.serving import cannot_start

# Seconds in which the database has to answer when somebody asks whether this server is ready.
PROBE_SECONDS = 2.0
log = logging.getLogger("authserver")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerParts(Parts):
    """The parts of a server with their real types; the engine has only the types of its ports."""

    policies: PluginSet
    signer: FollowedSigningKeys
    generation: FollowedGeneration
    offered: FollowedSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """The server without its web.

    Attributes:
        parts: what the engine is made of, the settings among them.
        storage: the database.
        caretaker: cleans up in the background.
        background: what else is done in the background: keys, scopes and limits are read again, and the keys of trusted
            issuers are fetched if a plugin accepts what they sign.
        readings: the readers of the events that work in the background.
        floods: counts what strangers are refused too often.
        mailer: sends letters to people.
        insecure: a line for everything that must not be so in production.
        caller: who works with it where no request does: the server itself, or a command.
        origins: where each setting comes from, by its key (`ini.origins`).
        ending: whether this process was told to end.
    """

    parts: ServerParts
    storage: Database
    caretaker: Caretaker
    background: tuple[Background, ...]
    readings: tuple[Reading, ...]
    floods: Floods
    mailer: Mailer
    insecure: tuple[str, ...]
    caller: Caller
    origins: Mapping[str, str] = field(default_factory=dict)
    ending: Ending = field(default_factory=Ending)
    _probes: TimeLimit = field(default_factory=lambda: TimeLimit(PROBE_SECONDS, threads=2))

    @contextmanager
    def begin(
        self, *, caller: Caller | None = None, journal: Journal | None = None, optimistic: bool = False
    ) -> Iterator[Engine]:
        """An engine in a new transaction: for commands, start-up, and what outlives a refused request.

        Args:
            optimistic: as in `engine.ports.Storage`.
        """
        now = datetime.now(UTC)
        with self.storage.begin(optimistic=optimistic) as stores:
            engine = Engine.of(self.parts, stores, now, caller=caller or self.caller, journal=journal)
            yield engine
        self.tell(engine.journal)

    def tell(self, journal: Journal) -> None:
        """Call observing plugins with what happened, and send what was written to people, after the commit (T112).

        Raises:
            MailFailed: a command wanted a mail to be sent, and it was not; what it changed stays.
        """
        for event in journal.events:
            self.parts.policies.observe(event)
        self.mailer.put(journal.letters)

    def answer_forgotten(self, username: str, caller: Caller) -> None:
        """Send this person a link, in the background: the request takes as long for every name.

        Args:
            caller: of the request in which somebody asked.
        """

        def answer() -> None:
            with self.begin(caller=caller) as engine:
                password_links.answer_forgotten(engine, username)

        self.mailer.later(answer)

    def note_failed_mail(self, letter: Letter, problem: str) -> None:
        """Note that a letter was not sent in the end; the log says why."""
        log.error("a mail (%s) to %s was not sent: %s", letter.kind, letter.user.user_id, problem)
        with self.begin() as engine:
            engine.journal.user_id = letter.user.user_id
            engine.record(EventType.MAIL_FAILED, details={"letter": letter.kind})

    def events_waiting(self) -> Mapping[str, int]:
        """How many events each reader has still to take, by its name; nothing when the database is away."""
        try:
            return {reading.reader.name: reading.backlog() for reading in self.readings}
        except StorageUnavailable:
            return {}

    def events_set_aside(self) -> Mapping[str, int]:
        """How many events each reader never took; nothing when the database is away."""
        try:
            with self.storage.begin() as stores:
                known = stores.event_positions.set_aside()
        except StorageUnavailable:
            return {}
        return {reading.reader.name: known.get(reading.reader.name, 0) for reading in self.readings}

    def event_chain(self) -> Chain | None:
        """The head of the chain of seals, and what is not sealed yet; None when the database is away."""
        try:
            with self.storage.begin() as stores:
                return chain_of(stores)
        except StorageUnavailable:
            return None

    def close(self) -> None:
        """Stop what works in the background, store what was counted, close plugins and connections. Harmless twice."""
        self.caretaker.stop()
        for each in self.background:
            each.stop()
        for reading in self.readings:
            reading.stop()
        self.mailer.stop()
        self.floods.store(everything=True)
        self.parts.policies.close()
        self.storage.close()

    def check_database(self) -> None:
        """Raises SettingsError unless this version can work with the tables; StorageUnavailable when it is away."""
        key, revision = "authserver.database_url", self.storage.revision()
        match migrate.schema_of(self.storage, revision, migrate.head()):
            case migrate.Schema.BEHIND:
                at = f"is at migration {revision}" if revision else "has no tables"
                problem = f"the database {at}, not at this version's: run `authserver db upgrade`"
                raise SettingsError([f"{key}: {problem}"])
            case migrate.Schema.TOO_NEW:
                problem = f"the database is at migration {revision}, of a later version"
                raise SettingsError([f"{key}: {problem}: install that version, or name another database"])

    def probe_database(self) -> None:
        """The same within a time limit, for those who look whether this server is ready."""
        try:
            self._probes.call(self.check_database)
        except TooSlow as error:
            raise StorageUnavailable(str(error)) from error

    def prepare(self) -> None:
        """Check the database and read what answers are made with. Raises what `check_database` and `prepare_keys` do."""
        self.check_database()
        self.prepare_keys()
        self.parts.generation.began_at()
        self.parts.offered.scopes()
        for reading in self.readings:
            reading.begin()

    def prepare_keys(self) -> None:
        """Check the key ring, make a signing key unless there is one, and read all keys.

        Raises:
            SettingsError: the ring lacks a key that is needed, or has another under its id.
        """
        with self.begin() as engine:
            ring.check(engine)
            signing_keys.prepare(engine)
        self.parts.signer.load()

    def engine(self, request: Request) -> Engine:
        """The engine of one web request, in the transaction of that request."""
        stores, journal = self.storage.for_transaction(request.tm), request.journal
        policies = self.parts.policies
        if policies.serves("observe") or is_mail_on(policies):
            request.tm.get().addAfterCommitHook(lambda committed: self.tell(journal) if committed else None)
        return Engine.of(self.parts, stores, datetime.now(UTC), caller=request.caller, journal=journal)


def wsgi(global_config: Mapping[str, str], **ini: str) -> Router:
    """What `pserve` calls: `start` and the upkeep; problems are shown as sentences, without a traceback."""
    folder = global_config.get("here")
    try:
        if problems := ini_reader.unused_variables(global_config):
            raise SettingsError(problems)
        router = start(ini, folder=Path(folder) if folder else None)
        # A process that replaces another must not be kept from it by a service that is away just now.
        if not is_started_again():
            check_services(router.registry.application)
    except SettingsError as error:
        raise SystemExit(cannot_start(error.problems)) from None
    except KeyboardInterrupt as error:
        raise SystemExit(f"authserver did not start: {str(error) or 'interrupted'}") from None
    except ConfigurationError as error:
        raise SystemExit(f"authserver cannot start: a plugin's pages clash with others: {error}") from None
    except StorageUnavailable as error:
        why = " ".join(str(error).split())
        raise SystemExit(
            cannot_start(
                [
                    (
                        f"authserver.database_url: the database cannot be used: {why}; start it, or correct the address, the "
                        "user and the password"
                    )
                ]
            )
        ) from None
    application: Application = router.registry.application
    application.caretaker.start()
    for each in application.background:
        each.start()
    for reading in application.readings:
        reading.start()
    atexit.register(application.close)
    _end_in_order()
    return router


def check_services(application: Application) -> None:
    """Raises SettingsError, and closes the application, if a service that a plugin asks does not answer."""
    try:
        application.parts.policies.check_services()
    except SettingsError:
        application.close()
        raise


def _end_in_order() -> None:
    """Let SIGTERM end the process as Ctrl-C does: requests are finished, and plugins are closed.

    Unless the server around us has something else in mind with that signal.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())


def start(ini: Mapping[str, str], *, folder: Path | None = None) -> Router:
    """The WSGI application of an INI file's `[app:main]` section, with its database and keys checked.

    Args:
        folder: that of the INI file, where modules of plugins are found, too.

    Raises:
        SettingsError: settings, plugins or keys cannot be used; every problem is named.
        ConfigurationError: the pages of plugins clash with others.
        StorageUnavailable: the database cannot be used.
    """
    application = build(ini, folder=folder)
    announce(application)
    try:
        application.storage.check_file()
        application.prepare()
        announce_issuers(application)
        return make_wsgi_app(application, ini)
    except BaseException:
        application.close()
        raise


def build(
    ini: Mapping[str, str],
    *,
    folder: Path | None = None,
    caller: Caller = SERVER,
    patience: float = LOADING_SECONDS,
    shadow: bool = True,
) -> Application:
    """Read the settings and make every part; the database is not used yet. The caller must close it.

    Args:
        folder: that of the INI file, where modules of plugins are found, too.
        caller: who works with it where no request does.
        patience: how many seconds each plugin may take for its import, for its construction and for its `prepare`.
        shadow: whether the plugins that are tried out are loaded, too.

    Raises:
        SettingsError: settings or plugins cannot be used; every problem is named.
    """
    loaded = ini_reader.load(ini)
    settings = loaded.settings
    load = partial(
        plugin_loader.load,
        settings=loaded.plugin_settings,
        production=settings.is_production,
        time_limit=settings.policy_time_limit,
        fetching=settings.fetch_time_limit,
        trace=settings.trace_plugins,
        folder=folder,
        patience=patience,
    )
    plugins, insecure = load(settings.plugins, others=settings.shadow_plugins)
    try:
        application = _build(loaded, plugins, insecure, caller, load if shadow else None)
        return replace(application, origins=ini_reader.origins(ini))
    except BaseException:
        plugins.close()
        raise


def _build(
    loaded: Loaded,
    plugins: PluginSet,
    insecure_plugins: Sequence[str],
    caller: Caller,
    load: Callable[..., tuple[PluginSet, list[str]]] | None,
) -> Application:
    """The parts around the plugins; `load` loads those that are tried out, unless nothing is."""
    settings = loaded.settings
    unknown = [name for name in settings.grant_types if name not in grants.CORE]
    if unknown:
        hint = ini_reader.did_you_mean(unknown[0], grants.CORE, "")
        raise SettingsError([f"authserver.grant_types: {unknown[0]}: no such grant type; {hint}"])
    languages.check(settings)
    sealing_keys = KeyRing(key_ring(settings))
    storage = _open_database(settings.database_url.value, any_text=caller is not SERVER)
    if plugins.serves("observe_request"):
        storage.watch()
    insecure_shadows: list[str] = []
    if load is not None and settings.shadow_plugins:
        shadows, insecure_shadows = load(
            settings.shadow_plugins, others=settings.plugins, key="authserver.shadow_plugins"
        )
        plugins.shadow = Shadow(shadows, storage)
    resources, client_forms = listed_resources.read(loaded, plugins)
    try:
        profiles = joined("profile of assertions", {}, plugins, "assertion_profiles")
        core = {name: grants.CORE[name] for name in settings.grant_types}
        scopes = joined("scope", settings.scope_sentences, plugins, "scopes")
        parts = ServerParts(
            settings=settings,
            policies=plugins,
            signer=FollowedSigningKeys(storage, sealing_keys, settings.signing_algorithm),
            ring=sealing_keys,
            fetcher=fetcher_of(settings),
            password_checks=Turnstile(settings.password_checks),
            grant_types=joined(
                "grant type",
                {**core, assertion.GRANT_TYPE: assertion.redeem} if profiles else core,
                plugins,
                "grant_types",
            ),
            auth_methods=auth_methods(plugins, settings.issuer),
            client_proofs=joined(
                "method of authentication", {}, plugins, "client_proofs", reserved=PRESENTATION
            ),
            assertion_profiles=profiles,
            exchangeable_tokens=joined("type of token", {}, plugins, "exchangeable_tokens"),
            listed_issuers=_listed_issuers(settings, profiles, scopes),
            offered=FollowedSettings(storage, scopes, rates.adjustable(map(plugins.plugin, plugins.names))),
            listed_resources=resources,
            client_forms=client_forms,
            client_metadata=joined(
                "member",
                {},
                plugins,
                "client_metadata",
                reserved=client_metadata.CORE_MEMBERS | plugins.names_at("registration_response"),
            ),
            private_use_redirect_uris=frozenset(
                uri for _, uris in plugins.contribute("private_use_redirect_uris") for uri in uris
            ),
            token_types=plugins.declared("confirmations"),
            response_modes=joined(
                "response mode", {}, plugins, "response_modes", reserved=(QUERY, "fragment")
            ),
            pkce_replacements=frozenset(plugins.declared("replaces_pkce")),
            pkce_waivers=frozenset(plugins.declared("waives_pkce")),
            further_algorithms=_further_algorithms(plugins),
            generation=FollowedGeneration(storage),
        )
        if problems := scope_problems(scopes, settings.maximum_request):
            raise SettingsError([f"scopes, of authserver.scopes and plugins: {line}" for line in problems])
        _check_scope_groups(settings, scopes)
    except MetadataCollision as error:
        raise SettingsError([str(error)]) from error
    floods = Floods(storage, settings.refusals_per_minute, plugins.observe)
    readers: tuple[Reader, ...] = (
        Sealer(sealing_keys, lambda: datetime.now(UTC)),
        Counting(),
        *deliveries(plugins, lambda: application.begin(caller=SERVER)),
    )
    application: Application = Application(
        parts=parts,
        storage=storage,
        caretaker=Caretaker(
            storage,
            sealing_keys,
            settings,
            floods,
            partial(plugins.look_after, lambda: application.begin(caller=SERVER))
            if plugins.serves("look_after")
            else None,
        ),
        background=(
            Following(parts.signer.follow, parts.offered.follow),
            *([KeysAhead(lambda: application.begin(caller=SERVER))] if profiles else ()),
        ),
        readings=tuple(Reading(storage, reader) for reader in readers),
        floods=floods,
        mailer=Mailer(
            plugins,
            settings,
            in_background=caller is SERVER,
            failed=lambda letter, problem: application.note_failed_mail(letter, problem),
        ),
        insecure=(*loaded.insecure, *insecure_plugins, *insecure_shadows),
        caller=caller,
    )
    return application


def _further_algorithms(plugins: PluginSet) -> tuple[str, ...]:
    """What plugins sign with, each beside that of access tokens: the server needs a key for each.

    Raises SettingsError for one that it cannot sign with.
    """
    declared = plugins.declared("signing_algorithms")
    if problems := [
        f"a plugin signs with {name} ({why}), for which no key can be made; known: {' '.join(ALGORITHMS)}"
        for name, why in declared.items()
        if name not in ALGORITHMS
    ]:
        raise SettingsError(problems)
    return tuple(declared)


def _listed_issuers(
    settings: Settings, profiles: Mapping[str, AssertionProfile], scopes: Mapping[str, str]
) -> Mapping[str, TrustedIssuer]:
    """The trusted issuers of the INI. Raises SettingsError for one that cannot be used, or is listed twice."""
    found: dict[str, TrustedIssuer] = {}
    declared = declared_issuers.read(settings, profiles, scopes)
    listed = [issuer for profile in profiles.values() for issuer in profile.listed.values()]
    for issuer in (*declared, *listed):
        other = found.setdefault(issuer.issuer, issuer)
        if other is not issuer:
            places = (
                f"for {other.profile} and for {issuer.profile}"
                if other.setting == issuer.setting
                else f"in {other.setting} and in {issuer.setting}"
            )
            raise SettingsError([f"{issuer.issuer}: it is listed {places}; keep one of them"])
    return found


def _check_scope_groups(settings: Settings, scopes: Iterable[str]) -> None:
    """Raises SettingsError for a group that no scope is in, because its prefix is misspelt."""
    prefixes = {prefix_of(scope) for scope in scopes}
    problems = [
        f"authserver.scope_groups: {prefix}: no scope begins with it; "
        + ini_reader.did_you_mean(prefix, prefixes, "")
        for prefix, _heading in settings.scope_groups
        if not any(is_in_group(scope, prefix) for scope in scopes)
    ]
    if problems:
        raise SettingsError(problems)


def _open_database(url: str, *, any_text: bool) -> Database:
    """The database of this URL; the URL is never repeated, because it may hold a password."""
    try:
        return Database(url, any_text=any_text)
    except ImportError as error:
        problem = f"its driver is not installed ({error.name}); for PostgreSQL: pip install 'authserver[postgresql]'"
    except (ArgumentError, TypeError, ValueError):
        problem = "expected sqlite:///path or postgresql+psycopg://user:password@host/name"
    raise SettingsError([f"authserver.database_url: {problem}"])


def announce(application: Application) -> None:
    """Log in one line where the server is and what it consists of, then what is insecure; at DEBUG who decides what."""
    settings, policies = application.parts.settings, application.parts.policies
    log.info(
        "%s: %s, %d insecure settings, %d plugins; `authserver plugins` shows who decides what",
        settings.issuer,
        settings.environment,
        len(application.insecure),
        len(policies.names),
    )
    for row in policies.table():
        asked = ", ".join(row["plugins"]) or f"nobody: {row['silence']}"
        log.debug("%s: %s", row["hook"], asked)
    for line in application.insecure:
        log.warning("insecure (development only): %s", line)


def announce_issuers(application: Application) -> None:
    """Log what operators should know of the issuers that are trusted."""
    with application.begin() as engine:
        for issuer, sentence in issuers.warnings(engine):
            log.warning("trusted issuer %s: %s", issuer.issuer, sentence)


def make_wsgi_app(application: Application, ini: Mapping[str, str]) -> Router:
    """The Pyramid application: packages, the engine on each request, our pages, the plugins' pages."""
    config = Configurator(
        settings={
            **{key: value for key, value in ini.items() if key.startswith("pyramid.")},
            "tm.manager_hook": pyramid_tm.explicit_manager,
            "tm.activate_hook": "authserver.web.routes.needs_transaction",
            "tm.annotate_user": False,
            "pyramid.tweens": TWEENS,
        }
    )
    config.registry.application = application
    config.include("pyramid_tm")
    config.add_request_method(lambda request: Journal(), "journal", reify=True)
    config.add_request_method(lambda request: request.application.engine(request), "engine", reify=True)
    config.include("authserver.web")
    # Included like the pages of the core, so that a view that both register is a conflict and neither overrides.
    config.include(add_plugin_pages, route_prefix=application.parts.settings.issuer_path)
    config.include("authserver.web.routes.refuse_switched_off")
    config.include("authserver.web.routes.refuse_other_well_known")
    try:
        config.include("authserver.web.metadata.publish")
    except MetadataCollision as error:
        raise SettingsError([str(error)]) from error
    config.commit()
    complete(config)
    router = config.make_wsgi_app()
    unused = [
        name for name, _ in config.registry.getUtility(ITweens).implicit() if name not in (EXCVIEW, *TWEENS)
    ]
    if unused:
        raise ConfigurationError(f"{unused[0]} is a tween, and TWEENS of authserver.web lists all there are")
    return router


def add_plugin_pages(config: Configurator) -> None:
    """Let every plugin add its pages."""
    config.registry.application.parts.policies.contribute("includeme", config=config)
