"""Edits of clients: what may change, what it means for what was given out before, and what is written about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from authserver.api import hookimpl
from authserver.engine.authorize import AskConsent, FormOutOfDate, Redirect
from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.editing import (
    ChangedMeanwhile,
    ClientEdit,
    ClientUnchanged,
    Edited,
    ListEdit,
    edit,
)
from authserver.engine.clients.registration import add_client
from authserver.engine.clients.secrets import add_secret
from authserver.engine.errors import InvalidClientMetadata, InvalidRedirectUri
from authserver.engine.records import Client, ClientMetadata
from authserver.plugins.asking import PluginSet
from authserver.testing.logos import PNG_LOGO, SVG_LOGO
from authserver.testing.records import a_client
from authserver.testing.rules import (
    Rules,
    assert_code,
    assert_page_error,
    assert_redirect_error,
    assert_refused,
)
from authserver.testing.service import REDIRECT_URI
from authserver.testing.stories import TokenFamily

NEW_URI = "https://new.example/cb"


def change(rules: Rules, client: Client, **wanted: Any) -> Edited:
    with rules.begin() as engine:
        return edit(engine, client.client_id, ClientEdit(**wanted))


def kept(rules: Rules, client: Client) -> Client:
    return rules.stores.tables.clients[client.client_id]


def refused(rules: Rules, client: Client, error: type[Exception], match: str, **wanted: Any) -> None:
    """The edit is refused, and nothing is written."""
    before, events = kept(rules, client), rules.events()
    with pytest.raises(error, match=match):
        change(rules, client, **wanted)
    assert kept(rules, client) == before
    assert rules.events() == events


# ---- what changes ------------------------------------------------------------------------------------


def test_what_is_named_changes_and_the_rest_stays(rules: Rules) -> None:
    client, secret = rules.add_client(details={"tos_uri": "https://client.example/tos"})
    edited = change(
        rules,
        client,
        name=" Berichte ",
        scopes=ListEdit(added=("files.write",)),
        details={"client_uri": "https://client.example/", "tos_uri": None},
        logo=SVG_LOGO,
    )
    assert edited.client == kept(rules, client)
    assert edited.client == replace(
        client,
        name="Berichte",
        scopes=("profile", "files.read", "files.write"),
        details={"client_uri": "https://client.example/"},
        logo=edited.client.logo,
    )
    assert edited.secret is None
    assert rules.token(client, secret, grant_type="refresh_token", refresh_token="x").json["error"] == (
        "invalid_grant"
    )


def test_an_edit_leaves_one_event_with_what_was_and_what_is(rules: Rules) -> None:
    """With who did it; a secret is in no event."""
    client, _ = rules.add_client()
    edited = change(rules, client, name="Another", auth_method="none", logo=PNG_LOGO)
    assert edited.changed.keys() == {"client_name", "token_endpoint_auth_method", "logo"}
    (event,) = rules.events("client.changed")
    assert event["client_id"] == client.client_id
    assert event["actor"]
    assert event["details"] == {
        "changed": {
            "client_name": {"from": "Example", "to": "Another"},
            "token_endpoint_auth_method": {"from": "client_secret_basic", "to": "none"},
            "logo": {"from": None, "to": kept(rules, client).logo},
        }
    }
    again = change(rules, client, auth_method="client_secret_post")
    assert again.secret
    assert again.secret not in repr(again)
    assert again.secret not in repr(rules.events())


def test_an_edit_that_changes_nothing_writes_nothing(rules: Rules) -> None:
    client, _ = rules.add_client()
    events = rules.events()
    edited = change(
        rules,
        client,
        name="Example",
        redirect_uris=ListEdit(added=(REDIRECT_URI,)),
        scopes=ListEdit(replaced_by=("profile", "files.read")),
        details={"client_uri": None},
        logo=b"",
    )
    assert (edited.client, edited.changed) == (client, {})
    assert rules.events() == events


@pytest.mark.parametrize(
    ("wanted", "after"),
    [
        (ListEdit(), ("a", "b")),
        (ListEdit(replaced_by=("c", "a", "c")), ("c", "a")),
        (ListEdit(added=("c", "b")), ("a", "b", "c")),
        (ListEdit(removed=("a",)), ("b",)),
        (ListEdit(added=("c",), removed=("a", "b")), ("c",)),
    ],
)
def test_a_list_is_replaced_or_added_to_and_removed_from(wanted: ListEdit, after: tuple[str, ...]) -> None:
    assert wanted.of("scope", ("a", "b")) == after


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            ListEdit(replaced_by=("a",), added=("c",)),
            "scope: either give a whole new list, or add and remove",
        ),
        (ListEdit(replaced_by=("a",), removed=("b",)), "either give a whole new list"),
        (ListEdit(added=("c",), removed=("c",)), "c cannot be both added and removed"),
        (ListEdit(removed=("x",)), "scope: x is not in the list, which has a, b"),
    ],
)
def test_a_list_edit_that_contradicts_itself_is_refused(wanted: ListEdit, message: str) -> None:
    with pytest.raises(ClientUnchanged, match=message):
        wanted.of("scope", ("a", "b"))


def test_the_application_type_follows_the_redirect_uris_if_they_contradict_it(rules: Rules) -> None:
    """K-12: as at registration; one that was chosen stays where it fits."""
    client, _ = rules.add_client()
    local = ListEdit(added=("http://127.0.0.1/cb",))
    assert change(rules, client, redirect_uris=local).client.application_type == "native"
    back = ListEdit(removed=("http://127.0.0.1/cb",))
    assert change(rules, client, redirect_uris=back).client.application_type == "native"
    assert change(rules, client, application_type="web").client.application_type == "web"


def test_requests_from_the_origin_of_a_new_redirect_uri_are_answered(rules: Rules) -> None:
    """Q-01."""
    client, _ = rules.add_client()
    change(rules, client, redirect_uris=ListEdit(replaced_by=(NEW_URI,)))
    assert rules.stores.clients.knows_origin("https://new.example")
    assert not rules.stores.clients.knows_origin("https://client.example")


# ---- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        ({"redirect_uris": ListEdit(added=("http://client.example/cb",))}, InvalidRedirectUri, "https"),
        ({"redirect_uris": ListEdit(added=("javascript:alert(1)",))}, InvalidRedirectUri, "redirect_uris"),
        ({"redirect_uris": ListEdit(added=("cursor://x.example/cb",))}, InvalidRedirectUri, "period"),
        ({"redirect_uris": ListEdit(removed=(REDIRECT_URI,))}, InvalidRedirectUri, "missing"),
        (
            {"redirect_uris": ListEdit(added=tuple(f"https://a.example/{n}" for n in range(10)))},
            InvalidRedirectUri,
            "more than 10",
        ),
        ({"redirect_uris": ListEdit(added=("a b",))}, InvalidRedirectUri, "characters"),
        ({"application_type": "native "}, InvalidClientMetadata, "application_type"),
        ({"scopes": ListEdit(added=("no.such",))}, InvalidClientMetadata, "no.such: not offered here"),
        ({"scopes": ListEdit(removed=("profile", "files.read"))}, InvalidClientMetadata, "scope must name"),
        ({"grant_types": ListEdit(added=("password",))}, InvalidClientMetadata, "password: not offered"),
        (
            {"grant_types": ListEdit(removed=("authorization_code",))},
            InvalidClientMetadata,
            "needs authorization_code",
        ),
        (
            {"grant_types": ListEdit(removed=("authorization_code", "refresh_token"))},
            InvalidClientMetadata,
            "grant_types",
        ),
        ({"auth_method": "tls_client_auth"}, InvalidClientMetadata, "token_endpoint_auth_method"),
        ({"auth_method": "none", "rotates_refresh_tokens": False}, InvalidClientMetadata, "rotate"),
        (
            {"auth_method": "none", "grant_types": ListEdit(added=("client_credentials",))},
            InvalidClientMetadata,
            "authenticates",
        ),
        ({"name": " "}, InvalidClientMetadata, "client_name must not be empty"),
        ({"name": "\x1b[2J"}, InvalidClientMetadata, "printable"),
        ({"name": "x" * 101}, InvalidClientMetadata, "100"),
        ({"details": {"client_uri": "http://client.example/"}}, InvalidClientMetadata, "client_uri"),
        ({"details": {"tos_uri": "javascript:alert(1)"}}, InvalidClientMetadata, "tos_uri"),
        ({"details": {"policy_uri": "https://client.example/#p"}}, InvalidClientMetadata, "policy_uri"),
        ({"logo": b"GIF89a"}, InvalidClientMetadata, "logo: it must be an SVG or PNG file"),
    ],
)
def test_the_result_is_held_to_the_rules_of_registration(
    rules: Rules, wanted: dict[str, Any], error: type[Exception], message: str
) -> None:
    """K-05, C-16: and nothing is written."""
    client, _ = rules.add_client()
    refused(rules, client, error, message, **wanted)


def test_what_is_not_offered_any_more_is_named(make_rules: Callable[..., Rules]) -> None:
    """An operator may have taken a scope out of the INI since."""
    rules = make_rules()
    client, _ = rules.add_client()
    rules.change("clients", scopes=("profile", "gone.read"))
    refused(rules, client, InvalidClientMetadata, "scope: gone.read: not offered here; remove it", name="New")
    change(rules, client, name="New", scopes=ListEdit(removed=("gone.read",)))
    assert kept(rules, client).scopes == ("profile",)


def test_a_client_that_is_not_kept_or_disabled_is_refused(rules: Rules) -> None:
    client, _ = rules.add_client()
    with rules.begin() as engine, pytest.raises(ClientUnchanged, match="nobody: no such client"):
        edit(engine, "nobody", ClientEdit(name="x"))
    with rules.begin() as engine:
        disable_client(engine, client.client_id)
    refused(rules, client, ClientUnchanged, "is disabled for good", name="x")


def test_a_client_of_a_plugin_is_changed_there(rules: Rules) -> None:
    """find_client: it has no row here."""

    class Elsewhere:
        @hookimpl
        def find_client(self, client_id: str) -> Client:
            return a_client(client_id=client_id)

    with rules.begin() as engine:
        with_plugin = replace(engine, policies=PluginSet([("elsewhere", Elsewhere())]))
        with pytest.raises(ClientUnchanged, match="elsewhere_1 belongs to a plugin"):
            edit(with_plugin, "elsewhere_1", ClientEdit(name="x"))


@pytest.mark.parametrize("wanted", [{"first_party": True}, {"logo": SVG_LOGO}])
def test_for_a_client_that_registered_itself_nobody_vouches(rules: Rules, wanted: dict[str, Any]) -> None:
    """E-09: it stays unverified, but an operator may correct or narrow it."""
    client = rules.self_registered(client_uri="https://client.example/")
    refused(rules, client, InvalidClientMetadata, "registered itself", **wanted)
    narrowed = change(
        rules, client, scopes=ListEdit(removed=("files.read",)), details={"client_uri": None}
    ).client
    assert (narrowed.scopes, narrowed.details) == (("profile",), {})
    assert narrowed.is_self_registered


def test_what_changed_meanwhile_is_not_written_over(rules: Rules) -> None:
    """T144: the client was read before somebody else changed it."""
    client, _ = rules.add_client()

    def read(name: str, value: Any) -> Any:
        """A plugin's reader of a member runs after the client was read, and before it is written."""
        change(rules, client, name="First")
        return value

    with rules.begin() as engine, pytest.raises(ChangedMeanwhile, match="at the same time"):
        slow = replace(engine, client_metadata={"acme": read})
        edit(slow, client.client_id, ClientEdit(name="Second", details={"acme": 1}))
    assert kept(rules, client).name == "First"


# ---- the authentication method and its secrets -------------------------------------------------------


def test_a_method_without_secret_ends_the_secrets_and_the_grants(rules: Rules) -> None:
    """Its tokens were protected by a credential that it no longer has (OAuth 2.1, 4.3.1)."""
    family = TokenFamily(rules)
    edited = change(rules, family.client, auth_method="none")
    assert (edited.secret, edited.revoked) == (None, 1)
    assert edited.client.is_public
    assert_refused(family.refresh(), "invalid_client", status=401)
    assert_refused(rules.refresh(edited.client, None, family.token), "invalid_grant")
    now = kept(rules, family.client)
    assert all(secret.expires_at is not None for secret in now.secrets)
    assert [event["details"] for event in rules.events("grants.revoked")] == [{"grants": 1}]
    assert len(rules.events("client_secret.ended")) == 1
    # It works as a public client from then on.
    fresh = rules.redeem(edited.client, None, rules.code(edited.client))
    assert fresh.status_int == 200


def test_an_unrotated_client_that_becomes_public_rotates(rules: Rules) -> None:
    """I-04."""
    client, _ = rules.add_client()
    change(rules, client, rotates_refresh_tokens=False)
    edited = change(rules, client, auth_method="none")
    assert edited.client.rotates_refresh_tokens
    assert edited.changed["rotates_refresh_tokens"] == (False, True)


def test_a_method_with_a_secret_gets_a_new_one(rules: Rules) -> None:
    """R-05: one that was left over does not come back to life."""
    client, _ = rules.add_client(token_endpoint_auth_method="none")
    with rules.begin() as engine:
        left_over = add_secret(engine, client.client_id)
    edited = change(rules, client, auth_method="client_secret_basic")
    assert edited.secret
    ask = {"grant_type": "refresh_token", "refresh_token": "x"}
    assert_refused(rules.token(edited.client, edited.secret, **ask), "invalid_grant")
    assert_refused(rules.token(edited.client, left_over, **ask), "invalid_client", status=401)
    assert edited.revoked == 0


def test_another_way_to_send_the_same_secret_keeps_it(rules: Rules) -> None:
    """J-01: and the method that was registered before is refused."""
    family = TokenFamily(rules)
    edited = change(rules, family.client, auth_method="client_secret_post")
    assert (edited.secret, edited.revoked) == (None, 0)
    assert_refused(family.refresh(), "invalid_client", status=401)
    assert rules.refresh(edited.client, family.secret, family.token).status_int == 200


# ---- what was given out before -----------------------------------------------------------------------


def test_people_are_asked_again_when_the_client_came_to_more(rules: Rules) -> None:
    """E-13, T089: another name, another destination; a scope that was not agreed to is asked for by itself."""
    client, _ = rules.add_client()
    browser = rules.signed_in()

    def asks(**changes: Any) -> bool:
        return isinstance(rules.authorize(kept(rules, client), browser, **changes), AskConsent)

    def agrees(**changes: Any) -> None:
        assert_code(rules.consent(rules.authorize(kept(rules, client), browser, **changes)))

    agrees()
    for wanted, again in (
        ({"name": "Another"}, True),
        ({"redirect_uris": ListEdit(added=(NEW_URI,))}, True),
        ({"redirect_uris": ListEdit(removed=(NEW_URI,))}, False),
        ({"redirect_uris": ListEdit(added=(f"{REDIRECT_URI}/other",))}, True),
        ({"scopes": ListEdit(added=("files.write",))}, False),
        ({"auth_method": "client_secret_post", "logo": PNG_LOGO}, False),
        ({"details": {"policy_uri": "https://client.example/privacy"}}, False),
        ({"rotates_refresh_tokens": False}, False),
    ):
        assert not asks()
        assert change(rules, client, **wanted).asks_again is again, wanted
        assert asks(redirect_uri=REDIRECT_URI) is again, wanted
        if again:
            agrees(redirect_uri=REDIRECT_URI)
        else:
            assert not asks(redirect_uri=REDIRECT_URI)
    assert asks(scope="profile files.write")


def test_silence_to_a_destination_that_nobody_agreed_to_is_impossible(rules: Rules) -> None:
    """E-13, T089: also when the first request after the edit names the new one."""
    client, _ = rules.add_client()
    browser = rules.signed_in()
    rules.code(client, browser)
    edited = change(rules, client, redirect_uris=ListEdit(added=(NEW_URI,))).client
    assert isinstance(rules.authorize(edited, browser, redirect_uri=NEW_URI), AskConsent)
    assert isinstance(rules.authorize(edited, browser), AskConsent)


@pytest.mark.parametrize(
    "wanted", [{"name": "Another"}, {"redirect_uris": ListEdit(added=(NEW_URI,))}], ids=["name", "uri"]
)
def test_an_open_consent_page_is_shown_again_after_a_change_of_what_it_asks(
    rules: Rules, wanted: dict[str, Any]
) -> None:
    """E-13: nobody has agreed to the client as it is now."""
    client, _ = rules.add_client()
    browser = rules.signed_in()
    asked = rules.authorize(client, browser)
    change(rules, client, **wanted)
    out_of_date = rules.consent(asked)
    assert isinstance(out_of_date, FormOutOfDate)
    assert rules.rows("grants") == []
    assert out_of_date.asked.agreement.client == kept(rules, client)
    rules._browsers[out_of_date.asked.handle] = browser
    assert_code(rules.consent(out_of_date.asked))


def test_an_open_consent_page_counts_after_other_changes(rules: Rules) -> None:
    """It gives what was ticked on it and no more; what the client may not have any more is refused."""
    client, _ = rules.add_client()
    asked = rules.authorize(client, rules.signed_in(), scope="profile files.read")
    change(rules, client, scopes=ListEdit(removed=("files.read",)))
    assert_redirect_error(rules.consent(asked), "invalid_scope")
    change(rules, client, logo=SVG_LOGO, scopes=ListEdit(added=("files.write", "files.read")))
    assert_code(rules.consent(asked))
    (grant,) = rules.rows("grants")
    assert grant["scopes"] == ("profile", "files.read")


def test_a_redirect_uri_that_is_removed_gets_no_answer_any_more(rules: Rules) -> None:
    """T041: neither a pending request nor a code."""
    client, secret = rules.add_client()
    browser = rules.signed_in()
    code = rules.code(client, browser)
    asked = rules.authorize(client, browser, scope="files.read")
    change(rules, client, redirect_uris=ListEdit(replaced_by=(NEW_URI,)))
    assert_page_error(rules.consent(asked))
    assert_refused(rules.redeem(client, secret, code), "invalid_grant")


def test_a_grant_type_that_is_removed_stops_codes_refreshes_and_pending_requests(rules: Rules) -> None:
    """F-06, I-01."""
    family = TokenFamily(rules)
    browser = rules.signed_in()
    code = rules.code(family.client, browser)
    asked = rules.authorize(family.client, browser, scope="files.write")
    change(rules, family.client, grant_types=ListEdit(removed=("refresh_token",)))
    assert_refused(family.refresh(), "unauthorized_client")
    change(rules, family.client, grant_types=ListEdit(replaced_by=("client_credentials",)))
    assert_redirect_error(rules.consent(asked), "unauthorized_client")
    assert_refused(rules.redeem(family.client, family.secret, code), "unauthorized_client")
    back = ListEdit(replaced_by=("authorization_code", "refresh_token"))
    change(rules, family.client, grant_types=back)
    assert family.refresh().status_int == 200


def test_a_scope_that_is_removed_is_not_renewed(rules: Rules) -> None:
    """T041: the next refresh has what is left, and the grant what the person agreed to."""
    family = TokenFamily(rules)
    change(rules, family.client, scopes=ListEdit(removed=("files.read",)))
    refreshed = family.refresh().json
    assert refreshed["scope"] == "profile"
    change(rules, family.client, scopes=ListEdit(added=("files.read",)))
    assert family.refresh(refreshed["refresh_token"]).json["scope"] == "profile files.read"


def test_a_first_party_client_is_asked_for_when_it_is_none_any_more(rules: Rules) -> None:
    """E-12: who was not asked has agreed to nothing."""
    client, _ = rules.add_client(first_party=True)
    browser = rules.signed_in()
    assert isinstance(rules.authorize(client, browser), Redirect)
    change(rules, client, first_party=False)
    assert isinstance(rules.authorize(client, browser), AskConsent)
    change(rules, client, first_party=True)
    assert isinstance(rules.authorize(client, browser), Redirect)


# ---- logos -------------------------------------------------------------------------------------------


def test_a_logo_is_replaced_and_taken_away(rules: Rules) -> None:
    with rules.begin() as engine:
        client, _ = add_client(
            engine,
            ClientMetadata(client_name="x", redirect_uris=(REDIRECT_URI,), scopes=("profile",)),
            logo=SVG_LOGO,
        )
    find = rules.stores.clients.find_logo
    first = client.logo
    assert first
    found = find(client.client_id, first)
    assert found is not None
    assert (found.media_type, found.body) == ("image/svg+xml", SVG_LOGO)
    second = change(rules, client, logo=PNG_LOGO).client.logo
    assert second not in (None, first)
    assert find(client.client_id, first) is None
    assert change(rules, client, logo=b"").client.logo is None
    assert find(client.client_id, second) is None
