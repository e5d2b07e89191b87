"""The device grant (RFC 8628): a device polls, and a person types its code on another one."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests as http
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from authserver.engine.errors import OAuthError, PageError, Refusal
from authserver.engine.parameters import Parameters
from authserver.engine.pending import Browser
from authserver.engine.people.login import disable_user
from authserver.engine.records import Client, RegisteredBy
from authserver.features.device import DeviceGrant, pages, protocol, requests
from authserver.features.device.protocol import GRANT_TYPE
from authserver.settings import SettingsError
from authserver.storage import tables
from authserver.testing.live import live_server
from authserver.testing.plans import transcript_of
from authserver.testing.rules import Answer, Rules, assert_refused
from authserver.testing.server import ISSUER, PASSWORD, RESOURCE, Server, form_with, with_plugin
from authserver.testing.stories import assert_json_error
from tests.dpop_proofs import KEY, OTHER, proof

PAGE = f"{ISSUER}/device"
FILES = "https://files.example/"


class Devices(Rules):
    """Rules with the device grant on, a person and a client that may use it."""

    def __init__(self, fields: Mapping[str, str] | None = None, **settings: str) -> None:
        super().__init__({**with_plugin("device_grant", fields or {}), **settings})
        self.rules = DeviceGrant(**_read(fields or {})).rules
        self.add_user("ann", None)
        self.device, _ = self.add_client(
            grant_types=(GRANT_TYPE, "refresh_token"), token_endpoint_auth_method="none"
        )

    def begins(
        self,
        client: Client | None = None,
        *,
        source: str = "198.51.100.7",
        headers: Mapping[str, str] | None = None,
        **form: Any,
    ) -> Any:
        """What a device that asks is told, or why it is refused."""
        form = {"client_id": (client or self.device).client_id, "scope": "profile", **form}
        sent = Parameters.parse(urlencode(form, doseq=True))
        return self.at(
            protocol.ROUTE.name,
            lambda engine: protocol.ask(engine, sent, self.rules, PAGE),
            source=source,
            headers=headers or {},
        )

    def look(self, typed: str, browser: Browser | None = None, **at: Any) -> Any:
        """What a person sees who types this, or why they see nothing."""
        browser = browser or self.signed_in()
        assert browser.user is not None
        assert browser.session is not None
        person, session = browser.user, browser.session
        return self.at("device", lambda engine: pages.find(engine, typed, person, session, self.rules), **at)

    def allow(self, typed: str, browser: Browser | None = None, scopes: Any = None, **answer: Any) -> Any:
        """A person allows what the device of this code asks for, or some of it."""
        browser = browser or self.signed_in()
        asked = self.look(typed, browser)
        assert isinstance(asked, pages.Asked), asked
        return self.give(asked, browser, scopes, **answer)

    def give(self, asked: Any, browser: Browser, scopes: Any = None, *, confirmed: bool = True) -> Any:
        ticked = asked.agreement.scopes if scopes is None else scopes
        session = browser.session
        assert session is not None
        return self.at(
            "device_answer",
            lambda engine: pages.allow(engine, asked, session, scopes=ticked, confirmed=confirmed),
        )

    def deny(self, typed: str) -> Any:
        asked = self.look(typed)
        return self.at("device_answer", lambda engine: pages.deny(engine, asked))

    def poll(self, told: Mapping[str, Any] | str, client: Client | None = None, **form: Any) -> Answer:
        code = told if isinstance(told, str) else told["device_code"]
        return self.token(client or self.device, grant_type=GRANT_TYPE, device_code=code, **form)

    def polled(self, told: Mapping[str, Any], code: str, **form: Any) -> None:
        """Poll once after the interval, and expect this error."""
        self.wait(told["interval"] + 60)
        assert_refused(self.poll(told, **form), code)


def _read(fields: Mapping[str, str]) -> dict[str, Any]:
    numbers = {name: int(text) for name, text in fields.items() if text.isdigit()}
    flags = {name: text == "true" for name, text in fields.items() if text in ("true", "false")}
    lists = {name: tuple(text.split()) for name, text in fields.items() if name == "refused_groups"}
    return {**lists, **flags, **numbers}


def refusal_of(result: Any, reason: str) -> Refusal:
    assert isinstance(result, Refusal), result
    assert result.reason == reason
    return result


@pytest.fixture
def devices() -> Devices:
    return Devices()


# ---- what the device is told -------------------------------------------------------------------------


def test_a_device_is_told_its_codes_and_where_to_type_one(devices: Devices) -> None:
    """DEV-01."""
    told = devices.begins()
    assert told.keys() == {
        "device_code",
        "user_code",
        "verification_uri",
        "verification_uri_complete",
        "expires_in",
        "interval",
    }
    assert (told["verification_uri"], told["expires_in"], told["interval"]) == (PAGE, 600, 5)
    complete = urlsplit(told["verification_uri_complete"])
    assert parse_qs(complete.query) == {"user_code": [told["user_code"]]}


def test_codes_have_enough_bits_and_no_look_alikes_and_are_not_stored(devices: Devices) -> None:
    """DEV-04, DEV-16: 256 bits and 20^8; both end within 15 minutes; neither stands in a record or event."""
    told = devices.begins()
    assert re.fullmatch(rf"[{requests.ALPHABET}]{{4}}-[{requests.ALPHABET}]{{4}}", told["user_code"])
    assert len(set(requests.ALPHABET)) == 20
    alike = ("01", "0O", "0Q", "OQ", "1I", "1L", "2Z", "5S", "6G", "8B", "UV", "UY", "VY")
    assert not any(set(pair) <= set(requests.ALPHABET) for pair in alike)
    assert len(told["device_code"]) > 43
    devices.allow(told["user_code"])
    kept = repr([devices.rows(name) for name in ("kept", "events", "tokens", "grants")])
    plain = told["user_code"].replace("-", "")
    assert not any(text in kept for text in (told["device_code"], told["user_code"], plain))
    with pytest.raises(ValueError, match="60 to 900"):
        DeviceGrant(lifetime=901)


@given(st.text(st.sampled_from(requests.ALPHABET), min_size=8, max_size=8), st.data())
def test_a_code_is_read_however_it_is_typed(code: str, data: st.DataObject) -> None:
    """DEV-04: in any case, with any punctuation, and with digits in the place of letters that look like them."""
    written = "".join(
        data.draw(st.sampled_from(["", " ", "-", ".", "–"])) + data.draw(st.sampled_from(_spelt(letter)))
        for letter in code
    )
    assert requests.read_user_code(written) == code


def _spelt(letter: str) -> list[str]:
    wide = chr(ord(letter) + 0xFEE0)
    alike = {"Z": "2", "S": "5", "G": "6", "B": "8", "V": "u"}.get(letter, letter)
    return [letter, letter.lower(), wide, alike]


@pytest.mark.parametrize(
    "typed", ["", "BCDF-GHJ", "BCDF-GHJK-L", "BCDF-GHJ1", "BCDF-GHJÄ", "🙂" * 8, "\0" * 9]
)
def test_no_code_is_read_from_anything_else(typed: str) -> None:
    """DEV-04: what cannot be one is not looked up."""
    assert requests.read_user_code(typed) is None


# ---- the whole way -----------------------------------------------------------------------------------


def test_a_device_gets_tokens_once_its_person_has_agreed(devices: Devices) -> None:
    """DEV-02, DEV-19: pending until then; the grant is listed with the word device, its refresh token rotates."""
    told = devices.begins(scope="profile files.read")
    assert_refused(devices.poll(told), "authorization_pending")
    assert devices.allow(told["user_code"].lower(), scopes=["profile"]) is None
    answer = devices.poll(told)
    assert answer.status_int == 200, answer
    assert answer.json["scope"] == "profile"
    claims = devices.claims(answer.json["access_token"])
    (grant,) = devices.rows("grants")
    assert (claims["sub"], claims["client_id"]) == (grant["user_id"], devices.device.client_id)
    # DEV-17: nothing of an authorization request, which there was none of.
    assert "nonce" not in claims
    assert grant["details"]["grant_type"] == GRANT_TYPE
    assert "device" in grant["details"]["grant_type"]
    renewed = devices.refresh(devices.device, None, answer.json["refresh_token"])
    assert renewed.json["refresh_token"] != answer.json["refresh_token"]


def test_it_is_in_the_metadata_and_each_client_must_be_registered_for_it(devices: Devices) -> None:
    """DEV-06: a client that is not gets nothing, at either endpoint."""
    assert GRANT_TYPE in devices.parts.grant_types
    assert protocol.ROUTE.metadata == "device_authorization_endpoint"
    other, _ = devices.add_client(token_endpoint_auth_method="none")
    refusal_of(devices.begins(other), "grant-type-not-registered")
    assert_refused(devices.poll(devices.begins(), other), "unauthorized_client")


@pytest.mark.parametrize("state", ["unknown", "another's", "used", "malformed"])
def test_no_other_code_gives_anything_and_all_are_refused_alike(devices: Devices, state: str) -> None:
    """DEV-03, DEV-15: the answer does not tell a guess from a code of another client."""
    told = devices.begins()
    code: str = told["device_code"]
    client = devices.device
    if state == "unknown":
        code = devices.begins()["device_code"]
        devices.stores.tables.kept.clear()
    elif state == "another's":
        client, _ = devices.add_client(grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none")
    elif state == "used":
        devices.allow(told["user_code"])
        assert devices.poll(told).status_int == 200
    else:
        code = "as_device_guess"
    answer = devices.poll(code, client)
    assert_refused(answer, "invalid_grant")
    assert answer.json["error_description"] == "The device code is not valid."


def test_polling_too_often_makes_the_interval_longer(devices: Devices) -> None:
    """DEV-02, DEV-15: each time by 5 seconds, for all processes, because the record says so; and it leaves no event."""
    told = devices.begins()
    events = len(devices.events())
    assert_refused(devices.poll(told), "authorization_pending")
    for _ in range(2):
        devices.wait(4)
        assert_refused(devices.poll(told), "slow_down")
    # From the last poll on: 5 seconds, and 5 for each that came too early.
    devices.wait(14)
    assert_refused(devices.poll(told), "slow_down")
    devices.wait(21)
    assert_refused(devices.poll(told), "authorization_pending")
    assert len(devices.events()) == events


def test_two_processes_share_the_interval(devices: Devices) -> None:
    """DEV-15: a poll at another process right after one at this is too early."""
    other = Devices()
    other.stores, other.device = devices.stores, devices.device
    told = devices.begins()
    assert_refused(devices.poll(told), "authorization_pending")
    assert_refused(other.poll(told), "slow_down")


def test_a_clock_that_was_set_back_locks_no_device_out(devices: Devices) -> None:
    """T150: a poll in the future is no poll of a moment ago."""
    told = devices.begins()
    devices.wait(60)
    assert_refused(devices.poll(told), "authorization_pending")
    devices.wait(-50)
    assert_refused(devices.poll(told), "authorization_pending")


def test_what_the_person_denied_is_over(devices: Devices) -> None:
    """DEV-02, DEV-10: the device hears it, also again, and nobody can allow it any more."""
    told = devices.begins()
    devices.deny(told["user_code"])
    for _ in range(2):
        answer = devices.poll(told)
        assert_refused(answer, "access_denied")
    refused = refusal_of(devices.look(told["user_code"]), "device-request-answered")
    assert isinstance(refused, pages.Over)
    assert refused.heading == "This device was denied already"
    assert devices.rows("grants") == devices.rows("tokens") == []
    assert devices.events("consent.refused")


def test_what_nobody_answered_in_time_is_over(devices: Devices) -> None:
    """DEV-02, DEV-10: the device hears `expired_token`, and the page says that it has expired."""
    told = devices.begins()
    devices.wait(601)
    refused = refusal_of(devices.look(told["user_code"]), "device-request-expired")
    assert isinstance(refused, pages.Over)
    assert refused.heading == "This code has expired"
    assert_refused(devices.poll(told), "expired_token")


def test_nobody_answers_so_late_that_the_device_hears_nothing_of_it(devices: Devices) -> None:
    """DEV-10: who were told that their device is connected would look at one that has expired."""
    told = devices.begins()
    devices.wait(600 - told["interval"] - 1)
    assert isinstance(devices.look(told["user_code"]), pages.Asked)
    devices.wait(2)
    refusal_of(devices.look(told["user_code"]), "device-request-expired")
    assert_refused(devices.poll(told), "authorization_pending")


def test_what_was_allowed_in_time_must_be_fetched_in_time(devices: Devices) -> None:
    """DEV-16: an answer does not make a code live longer."""
    told = devices.begins()
    devices.allow(told["user_code"])
    devices.wait(601)
    assert_refused(devices.poll(told), "expired_token")


def test_an_answer_counts_once(devices: Devices) -> None:
    """DEV-09: of two people who see the page at once, the second is told that it was answered."""
    told, browser = devices.begins(), devices.signed_in()
    asked = devices.look(told["user_code"], browser)
    assert devices.give(asked, browser) is None
    refusal_of(devices.give(asked, browser), "device-request-answered")
    refusal_of(
        devices.at("device_answer", lambda engine: pages.deny(engine, asked)), "device-request-answered"
    )
    assert len(devices.rows("grants")) == 1


def test_nobody_but_the_first_who_typed_a_code_sees_or_answers_it(devices: Devices) -> None:
    """T118: for anybody else there is no such code, before the answer and after it."""
    devices.add_user("eve", None)
    told, eve = devices.begins(), devices.signed_in("eve")
    asked = devices.look(told["user_code"])
    refusal_of(devices.look(told["user_code"], eve), "user-code-unknown")
    assert devices.give(asked, devices.signed_in()) is None
    refusal_of(devices.look(told["user_code"], eve), "user-code-unknown")
    assert devices.claims(devices.poll(told).json["access_token"])["sub"] == asked.agreement.user.user_id


def test_a_poll_between_page_and_answer_loses_nothing(devices: Devices) -> None:
    """DEV-09: the record has changed by then, but it is pending still."""
    told, browser = devices.begins(), devices.signed_in()
    asked = devices.look(told["user_code"], browser)
    assert_refused(devices.poll(told), "authorization_pending")
    assert devices.give(asked, browser) is None
    assert devices.poll(told).status_int == 200


def test_two_polls_never_give_two_token_sets(devices: Devices) -> None:
    """DEV-09, T121: the second is refused, and ends nothing: its device may have lost the answer."""
    told = devices.begins()
    devices.allow(told["user_code"])
    first = devices.poll(told)
    assert_refused(devices.poll(told), "invalid_grant")
    claims = devices.claims(first.json["access_token"])
    (grant,) = devices.rows("grants")
    assert grant["revoked_at"] is None
    assert claims["jti"].startswith(grant["grant_id"])


# ---- never more than was asked for and agreed to -----------------------------------------------------


def test_polling_cannot_widen_what_was_agreed(devices: Devices) -> None:
    """DEV-07: neither scope nor resource; a `resource` must be one of those."""
    told = devices.begins(scope="profile", resource=RESOURCE)
    devices.allow(told["user_code"])
    assert_refused(devices.poll(told, resource=FILES), "invalid_target")
    answer = devices.poll(told, scope="profile files.read", resource=RESOURCE)
    assert answer.json["scope"] == "profile"
    assert devices.claims(answer.json["access_token"])["aud"] == RESOURCE


def test_an_answer_cannot_widen_what_was_asked_for(devices: Devices) -> None:
    """DEV-07: a scope that the page did not show is not given, whatever the form says."""
    told = devices.begins(scope="profile")
    devices.allow(told["user_code"], scopes=["profile", "files.read"])
    assert devices.poll(told).json["scope"] == "profile"


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"scope": "admin"}, "invalid_scope"),
        ({"scope": "nonsense"}, "invalid_scope"),
        ({"resource": "https://unknown.example/"}, "invalid_target"),
        ({"resource": "not a uri"}, "invalid_target"),
        ({"code_challenge": "x" * 43}, "invalid_request"),
        ({"code_challenge_method": "S256"}, "invalid_request"),
        ({"nonce": "n"}, "invalid_request"),
        ({"request": "e30.e30."}, "invalid_request"),
        ({"request_uri": "urn:example"}, "invalid_request"),
        ({f"more{number}": "x" * 1000 for number in range(20)}, "invalid_request"),
    ],
    ids=lambda value: None if isinstance(value, str) else "+".join([*value][:2]),
)
def test_a_device_cannot_ask_for_what_it_may_not_have(
    devices: Devices, form: Mapping[str, str], code: str
) -> None:
    """DEV-08, DEV-13, T168: at once; a `code_challenge` is never accepted and forgotten (CVE-2026-123542)."""
    refused = devices.begins(**form)
    assert isinstance(refused, OAuthError), refused
    assert (refused.code, refused.status) == (code, 400)
    assert devices.rows("kept") == []


def test_an_id_token_of_a_device_has_no_nonce() -> None:
    """DEV-17: and otherwise what other ID tokens have, such as when the person signed in."""
    plugged = with_plugin("device_grant", {})["authserver.plugins"]
    devices = Devices(**{"authserver.plugins": f"openid\n{plugged}"})
    devices.device, _ = devices.add_client(
        grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none", scopes=("openid", "profile")
    )
    told = devices.begins(scope="openid profile")
    devices.allow(told["user_code"])
    encoded = devices.poll(told).json["id_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    assert "nonce" not in claims
    assert claims.keys() >= {"iss", "sub", "aud", "exp", "iat", "auth_time", "at_hash"}


def test_another_client_id_in_the_body_of_a_poll_is_refused(devices: Devices) -> None:
    """J-06, T163: nobody redeems for one client and is authenticated as another (CVE-2026-55672)."""
    client, secret = devices.add_client(client_id="set-top", grant_types=(GRANT_TYPE,))
    told = devices.begins()
    form = {"grant_type": GRANT_TYPE, "device_code": told["device_code"]}
    for other in (devices.device.client_id, "nobody"):
        assert_refused(devices.token(client, secret, client_id=other, **form), "invalid_request")
    assert_refused(devices.token(client, secret, **form), "invalid_grant")
    assert_refused(devices.poll(told), "authorization_pending")


def test_a_verifier_without_a_challenge_is_refused(devices: Devices) -> None:
    """DEV-13, T168: a device that believes in it must hear that nobody checks it."""
    told = devices.begins()
    devices.allow(told["user_code"])
    assert_refused(devices.poll(told, code_verifier="v" * 43), "invalid_request")
    assert devices.poll(told).status_int == 200


def test_a_key_that_the_device_proves_at_first_binds_its_tokens() -> None:
    """DEV-14: a poll with another key, or with none, gets nothing, and the code stays usable for the device."""
    plugged = with_plugin("device_grant", {})["authserver.plugins"]
    devices = Devices(**{"authserver.plugins": f"dpop\n{plugged}"})
    url = f"{ISSUER}/oauth/{protocol.ROUTE.name}"
    told = devices.begins(headers={"dpop": proof(KEY, htu=url)})
    devices.allow(told["user_code"])
    for headers in ({}, {"dpop": proof(OTHER)}):
        assert_refused(devices.poll(told, headers=headers), "invalid_grant")
    answer = devices.poll(told, headers={"dpop": proof(KEY)})
    assert answer.json["token_type"] == "DPoP"
    assert devices.claims(answer.json["access_token"])["cnf"] == {"jkt": KEY.thumbprint()}
    # The refresh token of a public client is bound to it, too (DEV-19).
    assert_refused(devices.refresh(devices.device, None, answer.json["refresh_token"]), "invalid_dpop_proof")


# ---- the same checks at request, approval and polling ------------------------------------------------


def _disable_client(devices: Devices) -> None:
    devices.change("clients", disabled_at=devices.now)


def _take_grant_type(devices: Devices) -> None:
    devices.change("clients", grant_types=("refresh_token",))


def _take_scopes(devices: Devices) -> None:
    devices.change("clients", scopes=("files.read",))


def _take_resources(devices: Devices) -> None:
    devices.change("clients", resources=(FILES,))


def _refuse_group(devices: Devices) -> None:
    devices.change("users", groups=("visitors",))


def _disable_person(devices: Devices) -> None:
    with devices.begin() as engine:
        disable_user(engine, "ann")


CHANGES = [
    (_disable_client, "invalid_client"),
    (_take_grant_type, "unauthorized_client"),
    (_take_scopes, "invalid_scope"),
    (_take_resources, "invalid_target"),
    (_refuse_group, "access_denied"),
    (_disable_person, "invalid_grant"),
]


@pytest.mark.parametrize(("change", "code"), CHANGES, ids=[change.__name__[1:] for change, _ in CHANGES])
def test_what_changes_before_the_last_poll_counts(change: Any, code: str) -> None:
    """DEV-08, DEV-12, T120, T167: approval is not the last word (CVE-2024-38371); nothing is issued."""
    devices = Devices({"refused_groups": "visitors"})
    told = devices.begins(resource=RESOURCE)
    devices.allow(told["user_code"])
    change(devices)
    assert_refused(devices.poll(told), code, status=401 if code == "invalid_client" else 400)
    assert not devices.events("token.issued")


@pytest.mark.parametrize(
    "change", [change for change, _ in CHANGES[:-1]], ids=[change.__name__[1:] for change, _ in CHANGES[:-1]]
)
def test_what_changes_before_the_approval_counts(change: Any) -> None:
    """DEV-08, DEV-12, T167: nobody is asked for what their device cannot get."""
    devices = Devices({"refused_groups": "visitors"})
    told = devices.begins(resource=RESOURCE)
    change(devices)
    refused = devices.look(told["user_code"])
    assert isinstance(refused, PageError), refused
    assert devices.rows("grants") == []


def test_a_device_that_is_disconnected_before_its_poll_gets_nothing(devices: Devices) -> None:
    """DEV-08, I-14: what was agreed is a grant from the answer on, so it can be ended at once."""
    told = devices.begins()
    devices.allow(told["user_code"])
    with devices.begin() as engine:
        engine.stores.grants.revoke(devices.rows("grants")[0]["grant_id"], engine.now, "disconnected")
    answer = devices.poll(told)
    assert_refused(answer, "invalid_grant")
    assert answer.json["error_description"] == "The device code is not valid."


def test_an_answer_of_a_session_that_has_ended_does_not_count(devices: Devices) -> None:
    """I-14: signing out in another tab is first."""
    told, browser = devices.begins(), devices.signed_in()
    asked = devices.look(told["user_code"], browser)
    devices.stores.tables.sessions.clear()
    refusal_of(devices.give(asked, browser), "session-ended")
    assert devices.rows("grants") == []
    assert_refused(devices.poll(told), "authorization_pending")


def test_clients_that_registered_themselves_get_nothing_as_shipped() -> None:
    """DEV-12: unless a setting says so; then the page wants the person to confirm that they know it (E-09)."""
    for allowed in ("false", "true"):
        devices = Devices({"self_registered": allowed})
        devices.change("clients", registered_by=RegisteredBy.SELF)
        told = devices.begins()
        if allowed == "false":
            refusal_of(told, "device-client-not-allowed")
            continue
        browser = devices.signed_in()
        asked = devices.look(told["user_code"], browser)
        assert devices.give(asked, browser, confirmed=False) == "not-confirmed"
        assert devices.give(asked, browser) is None


# ---- the page ----------------------------------------------------------------------------------------


def test_the_page_knows_where_and_when_the_device_asked(devices: Devices) -> None:
    """DEV-05, DEV-11, T119: the address that it asked from, and the time, with what it asks for."""
    told = devices.begins(scope="profile files.read", source="203.0.113.9")
    asked = devices.look(told["user_code"].replace("-", " ").lower())
    assert (asked.found.source, asked.code) == ("203.0.113.9", told["user_code"])
    assert asked.agreement.scopes == ("profile", "files.read")
    assert devices.now - asked.found.record.created_at < timedelta(seconds=5)


def test_only_a_fresh_sign_in_may_answer(devices: Devices) -> None:
    """DEV-11: within 15 minutes as shipped; one in the future is of unknown age."""
    with devices.begin() as engine:
        for seconds, is_fresh in ((0, True), (899, True), (901, False), (-30, True), (-120, False)):
            session = devices.signed_in(seconds_ago=seconds).session
            assert session is not None
            assert pages.is_fresh(engine, session, devices.rules) is is_fresh, seconds


def test_an_answer_is_not_remembered_for_other_requests(devices: Devices) -> None:
    """DEV-05: somebody who was talked into one approval has not allowed the next request of that client."""
    told = devices.begins()
    devices.allow(told["user_code"])
    assert devices.rows("consents") == []
    assert devices.events("consent.given")[-1]["details"]["grant_type"] == GRANT_TYPE


def test_nothing_ticked_is_no_agreement(devices: Devices) -> None:
    """E-14: as on the consent page."""
    told = devices.begins()
    assert devices.allow(told["user_code"], scopes=[]) == "nothing-ticked"
    assert_refused(devices.poll(told), "authorization_pending")


def test_wrong_guesses_are_limited_for_a_person_and_for_all() -> None:
    """DEV-04, DEV-16, T117: from one account and from many; a right code is given back, and still limited after that."""
    limits = "typed = typed_code, account, 3, 10 minutes\nall = typed_code, all, 4, hour"
    devices = Devices(
        **{
            "authserver.plugins": with_plugin("rate_limits", {})["authserver.plugins"] + "\ndevice_grant",
            "authserver.plugin.rate_limits.limits": limits,
        }
    )
    devices.add_user("bob", None)
    told = devices.begins()
    for _ in range(5):
        assert isinstance(devices.look(told["user_code"]), pages.Asked)
    for _ in range(3):
        refusal_of(devices.look("BBBB-BBBB"), "user-code-unknown")
    refusal_of(devices.look("BBBB-BBBB"), "typed")
    refusal_of(devices.look(told["user_code"]), "typed")
    bob = devices.signed_in("bob")
    refusal_of(devices.look("CCCC-CCCC", bob), "user-code-unknown")
    refusal_of(devices.look("CCCC-CCCC", bob), "all")


def test_wrong_guesses_are_limited_from_one_address_and_from_many() -> None:
    """DEV-04, DEV-16, T117: accounts that share an address share its limit, and addresses the limit of all."""
    limits = "from = typed_code, source, 3, 10 minutes\nall = typed_code, all, 6, hour"
    devices = Devices(
        **{
            "authserver.plugins": with_plugin("rate_limits", {})["authserver.plugins"] + "\ndevice_grant",
            "authserver.plugin.rate_limits.limits": limits,
        }
    )
    told = devices.begins()
    people = []
    for number in range(7):
        devices.add_user(f"eve{number}", None)
        people.append(devices.signed_in(f"eve{number}"))
    for person in people[:3]:
        refusal_of(devices.look("BBBB-BBBB", person, source="198.51.100.1"), "user-code-unknown")
    # The right code is not looked up any more either: what was guessed is not told.
    for code in ("BBBB-BBBB", told["user_code"]):
        refusal_of(devices.look(code, people[3], source="198.51.100.1"), "from")
    for number, person in enumerate(people[3:6]):
        refusal_of(devices.look("BBBB-BBBB", person, source=f"203.0.113.{number}"), "user-code-unknown")
    for code in ("BBBB-BBBB", told["user_code"]):
        refusal_of(devices.look(code, people[6], source="192.0.2.99"), "all")


def test_a_code_that_the_database_has_forgotten_is_over(devices: Devices) -> None:
    """T149: it cannot be known whether a request was answered after the backup."""
    told = devices.begins()
    with devices.begin() as engine:
        engine.stores.generations.begin(devices.now + timedelta(seconds=1))
    devices.parts.generation.read()
    devices.wait(2)
    refusal_of(devices.look(told["user_code"]), "device-request-expired")
    assert_refused(devices.poll(told), "expired_token")


@pytest.mark.parametrize(
    "fields",
    [
        {"lifetime": "30"},
        {"lifetime": "901"},
        {"interval": "1"},
        {"lifetime": "60", "interval": "31"},
        {"age_for_approving": "5"},
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_stop_the_start(fields: Mapping[str, str]) -> None:
    """DEV-16: no code lives for more than 15 minutes, or for less than a device needs to hear the answer."""
    with pytest.raises(SettingsError, match="must be"):
        Devices(fields)


# ---- over the web ------------------------------------------------------------------------------------


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    server = Server(sqlite_url, with_plugin("device_grant", {}))
    server.add_user("ann")
    yield server
    server.close()


def test_a_person_connects_a_device_by_the_pages(server: Server) -> None:
    """DEV-01 to DEV-11, DEV-18, DEV-19: over HTTP, with the whole way of a person, who is not signed in at first."""
    device, _ = server.add_client(
        grant_types=(GRANT_TYPE, "refresh_token"), token_endpoint_auth_method="none"
    )
    metadata = server.browser().get("/.well-known/oauth-authorization-server").json
    assert metadata["device_authorization_endpoint"] == f"{ISSUER}/oauth/device_authorization"
    assert GRANT_TYPE in metadata["grant_types_supported"]
    asked = server.ask("/oauth/device_authorization", device, scope="profile files.read")
    assert asked.headers["Cache-Control"] == "no-store"
    told = asked.json
    poll = {"grant_type": GRANT_TYPE, "device_code": told["device_code"]}
    assert_json_error(server.token(device, **poll), "authorization_pending")
    # A poll that is refused leaves its mark, in spite of the refusal; this is all that a waiting device costs.
    with transcript_of(server.application) as seen:
        assert_json_error(server.token(device, **poll), "slow_down")
    assert seen == ["SELECT clients", "SELECT kept", "BEGIN", "UPDATE kept", "COMMIT"]
    assert not server.events("token.refused")

    browser = server.browser()
    path = told["verification_uri_complete"].removeprefix(ISSUER)
    sign_in = browser.get(path).follow()
    assert "to connect a device" in sign_in
    form = form_with(sign_in, "password")
    form["username"], form["password"] = "ann", PASSWORD
    page = form.submit().follow()
    form = form_with(page, "user_code")
    assert form["user_code"].value == told["user_code"]
    form["user_code"] = "BBBB BBBB"
    wrong = form.submit(status=400)
    assert "There is no device with this code" in wrong
    form = form_with(wrong, "user_code")
    form["user_code"] = told["user_code"].lower().replace("-", " ")
    page = form.submit()
    text = page.text
    assert told["user_code"] in text
    assert "192.0.2.1" in text
    assert "Asked for just now" in text
    assert "Did somebody send you this code" in text
    assert text.index('value="deny"') < text.index('value="allow"')
    assert "<script" not in text
    # Both buttons look alike.
    assert len(re.findall(r'<button class="button" type="submit" form="answer"', text)) == 2
    done = form_with(page, "scope").submit("answer", value="allow")
    assert "Your device is connected" in done
    over = form_with(page, "scope").submit("answer", value="allow", status=400)
    assert "You allowed this device already" in over

    tokens = server.token(device, **poll)
    assert tokens.json["scope"] == "profile files.read"
    assert tokens.json["refresh_token"]
    (grant,) = server.rows("grants")
    assert GRANT_TYPE in str(grant["details"])
    assert "device" in browser.get("/account/apps")
    assert told["user_code"] not in repr(server.rows("events"))


def test_of_many_polls_at_once_one_gets_tokens(database_url: str) -> None:
    """DEV-09, T121: on both databases; the others are refused, and end nothing."""
    server = Server(database_url, with_plugin("device_grant", {}))
    server.add_user("ann")
    device, _ = server.add_client(grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none")
    told = server.ask("/oauth/device_authorization", device, scope="profile").json
    browser = server.browser()
    server.sign_in(browser)
    form = form_with(browser.get("/device"), "user_code")
    form["user_code"] = told["user_code"]
    form_with(form.submit(), "scope").submit("answer", value="allow")
    poll = {"grant_type": GRANT_TYPE, "device_code": told["device_code"]}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.token(device, **poll), range(8)))
    assert sorted(answer.status_int for answer in answers) == [200] + [400] * 7
    assert {answer.json.get("error") for answer in answers} == {None, "invalid_grant"}
    assert len(server.events("token.issued")) == 1
    assert server.rows("grants")[0]["revoked_at"] is None
    server.close()


def test_a_device_that_asks_two_processes_in_turn_is_too_fast(sqlite_url: str) -> None:
    """DEV-02, DEV-15: over HTTP, at two processes of the system that share a database."""
    on = with_plugin("device_grant", {})
    with live_server(sqlite_url, on) as one, live_server(sqlite_url, on) as two:
        device, _ = one.add_client(grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none")

        def ask(server: Server, path: str, **form: str) -> Any:
            sent = {"client_id": device.client_id, **form}
            return http.post(f"{server.issuer}{path}", data=sent, timeout=20).json()

        told = ask(one, "/oauth/device_authorization", scope="profile")
        poll = {"grant_type": GRANT_TYPE, "device_code": told["device_code"]}
        answers = [ask(server, "/oauth/token", **poll)["error"] for server in (one, two, one)]
    assert answers == ["authorization_pending", "slow_down", "slow_down"]


def test_servers_on_one_database_share_the_interval_and_its_growth(database_url: str) -> None:
    """DEV-02, DEV-15: on both databases; what a poll at one of them leaves is what the next one at another finds."""
    servers = [Server(database_url, with_plugin("device_grant", {})) for _ in range(2)]
    first, second = servers
    device, _ = first.add_client(grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none")
    told = first.ask("/oauth/device_authorization", device, scope="profile").json
    poll = {"grant_type": GRANT_TYPE, "device_code": told["device_code"]}
    assert_json_error(first.token(device, **poll), "authorization_pending")
    assert_json_error(second.token(device, **poll), "slow_down")
    assert _interval(first) == told["interval"] + 5
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: servers[n % 2].token(device, **poll), range(6)))
    assert {answer.json["error"] for answer in answers} == {"slow_down"}
    assert _interval(second) > told["interval"] + 5
    for server in servers:
        server.close()


def _interval(server: Server) -> int:
    """That of the one device that has asked, as its record has it."""
    (interval,) = re.findall(r"['\"]interval['\"]: ?(\d+)", repr(server.rows("kept")))
    return int(interval)


def test_a_server_without_limits_says_that_codes_can_be_guessed(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """DEV-16, T117: whoever lists the plugin without limits is told at start."""
    Server(sqlite_url, with_plugin("device_grant", {"lifetime": "601"})).close()
    assert "no plugin limits how often somebody can guess codes" in caplog.text
    caplog.clear()
    limited = with_plugin("rate_limits", {})
    limited["authserver.plugins"] = f"{limited['authserver.plugins']}\ndevice_grant"
    Server(sqlite_url, limited).close()
    assert "guess codes" not in caplog.text


def test_the_pages_want_a_form_of_their_own_and_a_fresh_sign_in(server: Server) -> None:
    """DEV-11: neither another site nor an old session can answer."""
    device, _ = server.add_client(grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none")
    told = server.ask("/oauth/device_authorization", device).json
    browser = server.browser()
    server.sign_in(browser)
    for path in ("/device", "/device/answer"):
        browser.post(path, {"user_code": told["user_code"], "answer": "allow"}, status=403)
    page = browser.get("/device")
    earlier = datetime.now(UTC) - timedelta(seconds=1000)
    with server.application.storage.engine.begin() as connection:
        connection.execute(sa.update(tables.sessions).values(authenticated_at=earlier))
    form = form_with(page, "user_code")
    form["user_code"] = told["user_code"]
    sign_in = form.submit(status=303).follow()
    assert "you need to sign in again" in sign_in
    form = form_with(sign_in, "password")
    form["username"], form["password"] = "ann", PASSWORD
    assert form_with(form.submit().follow(), "user_code")["user_code"].value == told["user_code"]
    assert server.rows("grants") == []
