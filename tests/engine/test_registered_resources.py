"""Resources that operators register in the database, and removing one with everything that hangs on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from authserver.engine import ending, resources
from authserver.engine.authorize import AskConsent
from authserver.engine.context import Issue
from authserver.engine.ending import Act, Ended, Subject
from authserver.engine.errors import InvalidTarget
from authserver.engine.records import Client, Consent, Resource
from authserver.engine.resources import BadResource
from authserver.engine.tokens.issuing import issue, issue_code
from authserver.engine.uris import canonical_resource
from authserver.settings import AccessTokenFormat, SettingsError
from authserver.testing.records import a_grant, a_resource
from authserver.testing.rules import Rules, assert_inactive, assert_redirect_error, assert_refused
from authserver.testing.server import RESOURCE
from authserver.testing.stories import FILES, stored

NOTES = "https://notes.example"
SCOPES = ("profile", "files.read", "files.write")
OPAQUE = {"authserver.access_token_format": "opaque"}


def registered(rules: Rules, uri: str = NOTES, **members: Any) -> Resource:
    """A resource that an operator registers; by default every scope makes sense there."""
    form = canonical_resource(uri)
    with rules.begin() as engine:
        values = {"form": form, "name": "", "scopes": None, "created_at": engine.now, **members}
        added = a_resource(uri=uri, **values)
        resources.add(engine, added)
    return added


def removal(form: str, uri: str = NOTES, *, for_good: bool = True) -> Act:
    return Act(subject=Subject.resource(form, uri), for_good=for_good)


def removed(rules: Rules, resource: Resource) -> Ended:
    """What ended with the resource."""
    return total(ending.end(rules.begin, removal(resource.form, resource.uri)))


def total(batches: Iterable[Ended]) -> Ended:
    """What ended altogether; when JWTs expire is told by other tests."""
    return replace(sum(batches, Ended()), jwts=0, jwts_until=None)


def audience(rules: Rules, answer: Any) -> str | list[str]:
    aud: str | list[str] = rules.claims(answer.json["access_token"])["aud"]
    return aud


@pytest.fixture
def web(rules: Rules) -> tuple[Client, str]:
    client, secret = rules.add_client(scopes=SCOPES)
    assert secret
    return client, secret


@pytest.mark.parametrize("written", [NOTES, f"{NOTES}/", "HTTPS://Notes.example"])
@pytest.mark.parametrize("uri", [NOTES, f"{NOTES}/"])
def test_a_bare_host_is_one_resource_with_and_without_a_slash(rules: Rules, uri: str, written: str) -> None:
    """O-09, O-10: however it is asked for, the audience is the form that is registered."""
    registered(rules, uri)
    client, secret = rules.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    answer = rules.token(client, secret, grant_type="client_credentials", resource=written)
    assert audience(rules, answer) == uri


def test_with_a_path_they_are_two_resources(rules: Rules) -> None:
    """O-10."""
    registered(rules, f"{NOTES}/v1")
    client, secret = rules.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    assert_refused(
        rules.token(client, secret, grant_type="client_credentials", resource=f"{NOTES}/v1/"),
        "invalid_target",
    )
    registered(rules, f"{NOTES}/v1/")
    for uri in (f"{NOTES}/v1", f"{NOTES}/v1/"):
        answer = rules.token(client, secret, grant_type="client_credentials", resource=uri)
        assert audience(rules, answer) == uri


def test_the_registered_form_counts_when_it_changes(rules: Rules, web: tuple[Client, str]) -> None:
    """O-10: also for a grant of before."""
    before = registered(rules)
    answer = rules.redeem(*web, rules.code(web[0], resource=NOTES))
    assert audience(rules, answer) == NOTES
    with rules.begin() as engine:
        resources.change(engine, before, replace(before, uri=f"{NOTES}/"))
    answer = rules.refresh(*web, answer.json["refresh_token"])
    assert audience(rules, answer) == f"{NOTES}/"
    answer = rules.refresh(*web, answer.json["refresh_token"], resource=NOTES)
    assert audience(rules, answer) == f"{NOTES}/"


def test_a_token_has_the_scopes_of_its_registered_resource(rules: Rules, web: tuple[Client, str]) -> None:
    """O-07: alone, and together with one of the INI."""
    registered(rules, scopes=("profile",))
    code = rules.code(web[0], scope="profile files.read", resource=[NOTES, FILES])
    answer = rules.redeem(*web, code)
    assert answer.json["scope"] == "profile files.read"
    for uri, scope in ((NOTES, "profile"), (FILES, "files.read")):
        answer = rules.refresh(*web, answer.json["refresh_token"], resource=uri)
        assert (audience(rules, answer), answer.json["scope"]) == (uri, scope)


def test_the_default_may_be_a_registered_resource(make_rules: Callable[..., Rules]) -> None:
    """O-08, N-05: the INI lists none, and a request that names none is for the one of the database."""
    rules = make_rules(
        {
            "authserver.plugin.resources_listed.resources": None,
            "authserver.plugin.resources_listed.default": None,
        }
    )
    client, secret = rules.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    assert_refused(rules.token(client, secret, grant_type="client_credentials"), "invalid_target")
    registered(rules, is_default=True)
    assert audience(rules, rules.token(client, secret, grant_type="client_credentials")) == NOTES


def test_the_resource_is_fixed_at_consent(rules: Rules, web: tuple[Client, str]) -> None:
    """O-04, I-16: what was agreed to is what the page showed; later requests choose among that, and nothing else."""
    registered(rules)
    client, secret = web
    asked = rules.authorize(client, rules.signed_in(), scope="profile", resource=[NOTES, RESOURCE])
    assert isinstance(asked, AskConsent)
    assert asked.agreement.resources == (NOTES, RESOURCE)
    rules.consent(asked)
    (grant,) = rules.rows("grants")
    assert grant["resources"] == (NOTES, RESOURCE)
    code = rules.code(client, scope="profile", resource=NOTES)
    assert_refused(rules.redeem(client, secret, code, resource=RESOURCE), "invalid_target")
    answer = rules.redeem(client, secret, code)
    assert_refused(
        rules.refresh(client, secret, answer.json["refresh_token"], resource=RESOURCE), "invalid_target"
    )
    assert audience(rules, rules.refresh(client, secret, answer.json["refresh_token"])) == NOTES


def test_a_resource_that_is_removed_while_a_person_decides_is_refused(
    rules: Rules, web: tuple[Client, str]
) -> None:
    """O-03, T041: the answer of the page is checked again."""
    resource = registered(rules)
    asked = rules.authorize(web[0], rules.signed_in(), scope="profile", resource=NOTES)
    removed(rules, resource)
    assert_redirect_error(rules.consent(asked), "invalid_target")
    assert not rules.rows("grants")


@pytest.mark.parametrize("named", [{}, {"resource": NOTES}, {"resource": f"{NOTES}/"}])
@pytest.mark.parametrize("swept", [True, False])
def test_a_refresh_for_a_removed_resource_alone_ends(
    rules: Rules, web: tuple[Client, str], named: dict[str, str], swept: bool
) -> None:
    """I-17: the person must authorize again, even if the request names it, and however far the clean-up came."""
    resource = registered(rules)
    refresh = rules.redeem(*web, rules.code(web[0], resource=NOTES)).json["refresh_token"]
    if swept:
        removed(rules, resource)
    else:
        with rules.begin() as engine:
            engine.stores.resources.remove(resource.form)
    before = stored(rules)
    assert_refused(rules.refresh(*web, refresh, **named), "invalid_grant")
    assert stored(rules) == before


def test_a_removed_resource_among_several_is_an_invalid_target(rules: Rules, web: tuple[Client, str]) -> None:
    """I-16, I-17: the grant goes on for the others, by code and by refresh."""
    resource = registered(rules)
    refresh = rules.redeem(*web, rules.code(web[0], resource=[NOTES, RESOURCE])).json["refresh_token"]
    code = rules.code(web[0], resource=[NOTES, RESOURCE])
    with rules.begin() as engine:
        engine.stores.resources.remove(resource.form)
    for swept in (False, True):
        if swept:
            total(ending.end(rules.begin, removal(resource.form)))
        assert_refused(rules.refresh(*web, refresh, resource=NOTES), "invalid_target")
        assert_refused(rules.refresh(*web, refresh, resource=[RESOURCE, NOTES]), "invalid_target")
        answer = rules.refresh(*web, refresh)
        assert audience(rules, answer) == RESOURCE
        refresh = answer.json["refresh_token"]
    assert_refused(rules.redeem(*web, code, resource=NOTES), "invalid_target")
    assert audience(rules, rules.redeem(*web, code)) == RESOURCE


def test_a_grant_does_not_get_a_resource_back(rules: Rules, web: tuple[Client, str]) -> None:
    """L-08: one that is registered again is another one; nobody agreed to that."""
    resource = registered(rules)
    refresh = rules.redeem(*web, rules.code(web[0], resource=[NOTES, RESOURCE])).json["refresh_token"]
    removed(rules, resource)
    registered(rules)
    assert_refused(rules.refresh(*web, refresh, resource=NOTES), "invalid_target")
    assert audience(rules, rules.refresh(*web, refresh)) == RESOURCE


def test_a_line_that_is_taken_out_of_the_ini_ends_refreshes_too(make_rules: Callable[..., Rules]) -> None:
    """I-17: whatever the source of a resource was."""
    rules = make_rules({})
    rules.add_user()
    client, secret = rules.add_client(scopes=SCOPES)
    code = rules.code(client, scope="files.read", resource=FILES)
    refresh = rules.redeem(client, secret, code).json["refresh_token"]
    lines = {"authserver.plugin.resources_listed.resources": f"{RESOURCE} = *"}
    lines["authserver.plugin.introspect_resource_servers.clients"] = f"api = {RESOURCE}"
    without = Rules(lines, stores=rules.stores)
    assert_refused(without.refresh(client, secret, refresh), "invalid_grant")
    ended = total(ending.end(without.begin, removal(FILES, FILES, for_good=False)))
    assert (ended.grants, ended.consents) == (1, 1)


def test_a_policy_that_refuses_now_is_no_end_of_a_resource(make_rules: Callable[..., Rules]) -> None:
    """O-03: not for this client is `invalid_target`, and the grant stays."""
    rules = make_rules({})
    rules.add_user()
    client, secret = rules.add_client(scopes=SCOPES)
    answer = rules.redeem(client, secret, rules.code(client, resource=RESOURCE))
    rules.change("clients", resources=(FILES,))
    before = stored(rules)
    assert_refused(rules.refresh(client, secret, answer.json["refresh_token"]), "invalid_target")
    assert stored(rules) == before


def test_removing_ends_what_hangs_on_it_and_says_how_much(make_rules: Callable[..., Rules]) -> None:
    """L-08: grants for it alone end, others lose it, and tokens for it are inactive."""
    rules = make_rules(OPAQUE)
    rules.add_user()
    resource = registered(rules)
    apps = [rules.add_client(scopes=SCOPES) for _ in range(3)]
    named: list[list[str]] = [[NOTES], [NOTES, RESOURCE], [RESOURCE]]
    answers = [
        rules.redeem(client, secret, rules.code(client, scope="profile", resource=uris))
        for (client, secret), uris in zip(apps, named, strict=True)
    ]
    service, secret = rules.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    own = rules.token(service, secret, grant_type="client_credentials", resource=NOTES)
    both = apps[1]
    for_the_other = rules.refresh(*both, answers[1].json["refresh_token"], resource=RESOURCE)
    before = stored(rules)
    counted = total(ending.plan(rules.begin, removal(resource.form)))
    assert stored(rules) == before
    ended = removed(rules, resource)
    assert counted == ended
    assert ended == Ended(
        grants=2, narrowed_grants=1, refresh_tokens=1, access_tokens=3, consents=1, narrowed_consents=1
    )
    assert_inactive(rules.introspect(*apps[0], answers[0].json["access_token"]))
    assert_inactive(rules.introspect(*both, answers[1].json["access_token"]))
    assert_inactive(rules.introspect(service, secret, own.json["access_token"]))
    assert rules.introspect(*both, for_the_other.json["access_token"]).json["active"]
    assert rules.introspect(*both, for_the_other.json["refresh_token"]).json["active"]
    assert rules.introspect(*apps[2], answers[2].json["access_token"]).json["active"]
    assert removed(rules, resource) == Ended()


def test_a_jwt_for_a_removed_resource_is_inactive_at_introspection(
    rules: Rules, web: tuple[Client, str]
) -> None:
    """L-08: a JWT is not kept, but its grant is."""
    resource = registered(rules)
    answer = rules.redeem(*web, rules.code(web[0], resource=[NOTES, RESOURCE]))
    assert rules.introspect(*web, answer.json["access_token"]).json["active"]
    removed(rules, resource)
    assert_inactive(rules.introspect(*web, answer.json["access_token"]))


def test_other_grants_are_left_alone(rules: Rules) -> None:
    """Those that have ended already, and those for a URI that only begins alike."""
    resource = registered(rules)
    now = datetime.now(UTC)
    grants = [
        a_grant(grant_id="ended", resources=(NOTES,), expires_at=now - timedelta(seconds=1)),
        a_grant(grant_id="revoked", resources=(NOTES,), revoked_at=now, expires_at=now + timedelta(days=1)),
        a_grant(grant_id="deeper", resources=(f"{NOTES}/v1",), expires_at=now + timedelta(days=1)),
        a_grant(grant_id="no URI", resources=("notes.example",), expires_at=now + timedelta(days=1)),
    ]
    for grant in grants:
        rules.stores.grants.add(grant)
    assert removed(rules, resource) == Ended()
    assert list(rules.stores.tables.grants.values()) == grants


def test_many_grants_end_in_batches(rules: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    """L-08, T115: no transaction is long, however many grants there are; a second run goes on where the first ended."""
    monkeypatch.setattr(ending, "BATCH", 3)
    resource = registered(rules)
    expires_at = datetime.now(UTC) + timedelta(days=1)
    for number in range(8):
        uris = (NOTES,) if number % 2 else (NOTES, RESOURCE)
        rules.stores.grants.add(a_grant(grant_id=f"grant_{number}", resources=uris, expires_at=expires_at))
    batches = ending.end(rules.begin, removal(resource.form))
    assert not next(batches)
    assert rules.stores.resources.find(resource.form) is None
    assert next(batches) == Ended(grants=1, narrowed_grants=2)
    batches.close()
    again = [replace(each, jwts_until=None) for each in ending.end(rules.begin, removal(resource.form))]
    assert again == [
        Ended(),
        Ended(),
        Ended(grants=2, narrowed_grants=1),
        Ended(grants=1, narrowed_grants=1),
    ]
    told = [event["details"] for event in rules.events("grants.revoked")]
    assert [(each["grants"], each["narrowed_grants"]) for each in told] == [(1, 2), (3, 2)]


def test_a_resource_has_its_own_format_and_lifetime(rules: Rules, web: tuple[Client, str]) -> None:
    """N-01, N-02: as the database says; of several resources the strictest counts."""
    registered(rules, token_lifetime=120)
    registered(rules, "https://mail.example", token_format=AccessTokenFormat.OPAQUE, token_lifetime=300)
    for uris, seconds, is_opaque in (
        ([RESOURCE], 900, False),
        ([NOTES], 120, False),
        (["https://mail.example"], 300, True),
        ([RESOURCE, "https://mail.example"], 300, True),
        ([NOTES, "https://mail.example"], 120, True),
    ):
        answer = rules.redeem(*web, rules.code(web[0], resource=uris)).json
        assert answer["expires_in"] == seconds
        assert answer["access_token"].startswith("as_access_") == is_opaque


def test_the_ini_sets_format_and_lifetime_of_resources_and_clients(make_rules: Callable[..., Rules]) -> None:
    """N-01, N-02: what is set for the client counts before what is set for the resource."""
    rules = make_rules(
        {
            "authserver.access_token_lifetime@resources": f"https://FILES.example = 60\n{RESOURCE} = 1200",
            "authserver.access_token_format@resources": f"{FILES} = opaque",
            "authserver.access_token_lifetime@clients": "short = 30",
            "authserver.access_token_format@clients": "short = jwt",
        }
    )
    for client_id, uri, seconds, is_opaque in (
        ("usual", FILES, 60, True),
        ("usual", RESOURCE, 1200, False),
        ("short", FILES, 30, False),
        ("short", RESOURCE, 30, False),
    ):
        if client_id not in rules.stores.tables.clients:
            added = rules.add_client(client_id=client_id, grant_types=("client_credentials",), scopes=SCOPES)
        answer = rules.token(*added, grant_type="client_credentials", scope="files.read", resource=uri).json
        assert answer["expires_in"] == seconds
        assert answer["access_token"].startswith("as_access_") == is_opaque


@pytest.mark.parametrize(
    ("setting", "text", "told"),
    [
        (
            "access_token_lifetime@resources",
            "files = 60",
            "@resources: files: resource must be an absolute URI",
        ),
        ("access_token_lifetime@resources", f"{FILES} = 9", f"@resources: {FILES}: Expected `int` >= 10"),
        ("access_token_lifetime@clients", "short = long", "@clients: short: Expected `int`"),
        ("access_token_format@clients", "short = JWT", "@clients: short: Invalid enum value"),
        ("access_token_format@people", "ann = jwt", "expected access_token_format@clients or"),
        ("opaque_resources", "files", "opaque_resources: files: resource must be an absolute URI"),
        ("code_lifetime@clients", "short = 30", "no such setting"),
    ],
)
def test_a_line_that_cannot_be_used_stops_the_start(
    make_rules: Callable[..., Rules], setting: str, text: str, told: str
) -> None:
    with pytest.raises(SettingsError, match=told.replace("`", ".")):
        make_rules({f"authserver.{setting}": text})


def test_two_settings_that_contradict_each_other_stop_the_start(make_rules: Callable[..., Rules]) -> None:
    settings = {
        "authserver.opaque_resources": FILES,
        "authserver.access_token_format@resources": "https://files.example = jwt",
    }
    with pytest.raises(
        SettingsError, match=r"it is in authserver\.opaque_resources, too, which contradicts this"
    ):
        make_rules(settings)
    settings["authserver.access_token_format@resources"] = "https://files.example = opaque"
    make_rules(settings)


def test_the_clients_of_a_resource_may_introspect_its_tokens(rules: Rules, web: tuple[Client, str]) -> None:
    """M-03, RFC 7662, 4: its access tokens, for as long as they are registered with it."""
    api, secret = rules.add_client(client_id="notes-api", grant_types=("client_credentials",))
    resource = registered(rules, introspecting_clients=("notes-api",))
    answer = rules.redeem(*web, rules.code(web[0], resource=NOTES))
    other = rules.redeem(*web, rules.code(web[0], resource=RESOURCE))
    assert rules.introspect(api, secret, answer.json["access_token"]).json["aud"] == NOTES
    assert_inactive(rules.introspect(api, secret, answer.json["refresh_token"]))
    assert_inactive(rules.introspect(api, secret, other.json["access_token"]))
    with rules.begin() as engine:
        resources.change(engine, resource, replace(resource, introspecting_clients=()))
    assert_inactive(rules.introspect(api, secret, answer.json["access_token"]))


@pytest.mark.parametrize(
    ("uri", "members", "told"),
    [
        (FILES, {}, "the INI names it, in authserver.plugin.resources_listed.resources"),
        ("https://FILES.example", {}, "the INI names it"),
        (NOTES, {"name": "Notes\nand more"}, "a name has up to"),
        (NOTES, {"name": "n" * 300}, "a name has up to"),
        (NOTES, {"scopes": ("profile", "unknown")}, "unknown: no such scope"),
        (NOTES, {"introspecting_clients": ("nobody",)}, "nobody: no such client"),
        (NOTES, {"introspecting_clients": ("public",)}, "public: a public client may not introspect"),
        (
            NOTES,
            {"is_default": True},
            f"{RESOURCE} is the default already; take that back first, in authserver.plugin.resources_listed.default",
        ),
    ],
)
def test_what_cannot_be_registered_is_said(
    rules: Rules, uri: str, members: dict[str, Any], told: str
) -> None:
    rules.add_client(client_id="public", token_endpoint_auth_method="none")
    before = stored(rules)
    with pytest.raises(BadResource, match=told):
        registered(rules, uri, **members)
    assert stored(rules) == before


def test_a_resource_is_registered_once_under_one_spelling(rules: Rules) -> None:
    """O-10."""
    resource = registered(rules)
    with pytest.raises(BadResource, match=f"it is registered already, as {NOTES}"):
        registered(rules, f"{NOTES}/")
    with rules.begin() as engine, pytest.raises(BadResource, match="changed or removed meanwhile"):
        resources.change(engine, replace(resource, name="Another"), resource)


def test_what_is_done_with_resources_is_on_record(rules: Rules, web: tuple[Client, str]) -> None:
    resource = registered(rules, token_lifetime=300)
    rules.code(web[0], resource=NOTES)
    with rules.begin() as engine:
        resources.change(engine, resource, replace(resource, token_lifetime=None, name="Notes"))
    removed(rules, resource)
    (added,) = rules.events("resource.added")
    (changed,) = rules.events("resource.changed")
    (gone,) = rules.events("resource.removed")
    (revoked,) = rules.events("grants.revoked")
    assert added["details"]["token_lifetime"] == 300
    assert changed["details"]["changed"] == {
        "name": {"from": resource.name, "to": "Notes"},
        "token_lifetime": {"from": 300, "to": None},
    }
    # What it was last, so that it can be made again.
    was = {**added["details"], "name": "Notes", "token_lifetime": None}
    assert {name: gone["details"][name] for name in was} == was
    assert revoked["details"]["resource"] == NOTES
    assert revoked["reason"] == gone["reason"] == "resource-removed"
    assert (revoked["details"]["grants"], revoked["details"]["consents"]) == (1, 1)


def test_how_long_jwts_of_a_removed_resource_live_is_known(make_rules: Callable[..., Rules]) -> None:
    """L-08: by the longest lifetime that one of them can have."""
    subject = Subject.resource(canonical_resource(NOTES), NOTES)
    rules = make_rules({"authserver.access_token_lifetime@clients": "long = 7200"})
    with rules.begin() as engine:
        opaque = a_resource(token_format=AccessTokenFormat.OPAQUE)
        assert ending.longest_jwt(engine, subject, opaque) is None
        assert ending.longest_jwt(engine, subject, a_resource()) == timedelta(seconds=7200)
    with make_rules({}).begin() as engine:
        short = a_resource(token_lifetime=60)
        assert ending.longest_jwt(engine, subject, short) == timedelta(seconds=60)
        assert ending.longest_jwt(engine, subject) == timedelta(seconds=900)


# ---- what happens at the same time -----------------------------------------------------------------------


def test_nothing_is_granted_for_a_resource_that_was_removed_meanwhile(rules: Rules) -> None:
    """L-08: whoever removes it would not see the new grant, which would come back to life with the resource."""
    resource = registered(rules)
    client, _ = rules.add_client(grant_types=("client_credentials",), scopes=SCOPES)
    before = stored(rules)
    with rules.begin() as engine:
        assert engine.resources.find(resource.form) == resource
        grant = a_grant(client_id=client.client_id, user_id=None, resources=(NOTES,))
        new = replace(grant, expires_at=engine.now + timedelta(hours=1))
        order = Issue(
            grant=new, user=None, scopes=("read",), resources=(NOTES,), is_new=True, refreshable=True
        )
        engine.stores.resources.remove(resource.form)
        with pytest.raises(InvalidTarget) as refusal:
            issue(engine, client, order)
        assert refusal.value.reason == "resource-gone"
        with pytest.raises(InvalidTarget):
            issue_code(engine, client, new, "code", redirect_uri="https://a.example/", code_challenge="x")
        engine.stores.resources.add(resource)
    assert stored(rules) == before


def test_of_two_resources_that_are_removed_at_once_no_grant_is_left(
    rules: Rules, web: tuple[Client, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-08: a grant that has lost its other resource since it was read ends."""
    resource = registered(rules)
    rules.redeem(*web, rules.code(web[0], resource=[NOTES, RESOURCE]))
    with rules.begin() as engine:
        (before,) = engine.stores.grants.page(limit=9)
        assert engine.stores.grants.narrow(before, replace(before, resources=(NOTES,)))
        pages = iter([[before], []])
        monkeypatch.setattr(type(engine.stores.grants), "page", lambda *_, **__: next(pages))
    removed(rules, resource)
    (grant,) = rules.rows("grants")
    assert grant["revoked_reason"] == "resource-removed"
    assert grant["resources"] == (NOTES,)


def test_what_is_agreed_to_while_a_resource_is_removed_is_forgotten_too(
    rules: Rules, web: tuple[Client, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-08: nobody is taken to have agreed to a resource that is registered again."""
    resource = registered(rules)
    with rules.begin() as engine:
        consent = Consent(
            user_id="user_ada",
            client_id=web[0].client_id,
            client_name="",
            scopes=("profile",),
            resources=(NOTES,),
            redirect_uris=(),
            granted_at=engine.now,
        )
        engine.stores.consents.remember(consent)
        pages = iter([[replace(consent, resources=(NOTES, RESOURCE))], []])
        monkeypatch.setattr(type(engine.stores.consents), "page", lambda *_, **__: next(pages))
    removed(rules, resource)
    assert rules.rows("consents") == []


def test_a_client_may_ask_for_its_resource_however_it_is_spelt_now(rules: Rules) -> None:
    """O-03, O-09: what an operator writes in another way is no other resource."""
    resource = registered(rules)
    client, secret = rules.add_client(scopes=SCOPES)
    rules.change("clients", resources=(NOTES,))
    refresh = rules.redeem(client, secret, rules.code(client, resource=NOTES)).json["refresh_token"]
    with rules.begin() as engine:
        resources.change(engine, resource, replace(resource, uri=f"{NOTES}/"))
    assert audience(rules, rules.refresh(client, secret, refresh)) == f"{NOTES}/"
    assert_redirect_error(rules.authorize(client, rules.signed_in(), resource=RESOURCE), "invalid_target")


def test_a_refresh_token_with_nothing_left_is_not_active(rules: Rules, web: tuple[Client, str]) -> None:
    """M-04: its grant goes on for another resource, which this token of a grant type was never for."""
    client, _ = web
    registered(rules)
    rules.redeem(*web, rules.code(client, resource=[NOTES, RESOURCE]))
    with rules.begin() as engine:
        (grant,) = engine.stores.grants.page(limit=9)
        ann = engine.stores.users.find(grant.user_id or "")
        order = Issue(
            grant=grant, user=ann, scopes=("profile",), resources=(NOTES,), refreshable=True, is_new=False
        )
        refresh = issue(engine, client, order).refresh_token
    assert refresh
    assert rules.introspect(*web, refresh).json["active"]
    with rules.begin() as engine:
        assert engine.stores.grants.narrow(grant, replace(grant, resources=(RESOURCE,)))
    assert_refused(rules.refresh(*web, refresh), "invalid_grant")
    assert_inactive(rules.introspect(*web, refresh))
