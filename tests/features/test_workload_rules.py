"""Which workload a rule means: exact claims, wildcards for whole segments of a path, and names that can be taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from authserver.features.workload_identity.rules import Rules, read

API = "https://api.example/"
POD = {
    "sub": "system:serviceaccount:reports:nightly",
    "kubernetes.io": {
        "namespace": "reports",
        "pod": {"name": "nightly-x2", "uid": "11111111"},
        "serviceaccount": {"name": "nightly", "uid": "7d3f"},
    },
}
JOB = {
    "sub": "repo:octo-org/app:environment:production",
    "repository": "octo-org/app",
    "repository_id": "74",
    "repository_owner_id": "65",
    "ref": "refs/heads/main",
    "ref_protected": "true",
    "run_number": 10,
    "job_workflow_ref": "octo-org/app/.github/workflows/deploy.yml@refs/heads/main",
}
SEGMENT = st.text(
    st.characters(exclude_characters="/*", exclude_categories=["C", "Z"]), min_size=1, max_size=6
)


def rules_of(*claims: Mapping[str, Any], **options: Any) -> Rules:
    """Rules for these claims, which are called one, two, three."""
    names = ("one", "two", "three")
    rules = [
        {"name": name, "client": f"client-{name}", "claims": each, "resources": [API], "scopes": ["read"]}
        for name, each in zip(names, claims, strict=False)
    ]
    return read({"rules": rules, **options})


def met(rules: Rules, claims: Mapping[str, Any], client_id: str | None = None) -> list[str]:
    return [rule.name for rule in rules.met(claims, client_id)]


def test_every_claim_of_a_rule_must_be_as_it_says() -> None:
    """WIF-02: exactly, and in any depth; what a rule does not name does not matter."""
    wanted = {"kubernetes.io/namespace": "reports", "kubernetes.io/serviceaccount/uid": "7d3f"}
    rules = rules_of(wanted, {"kubernetes.io/namespace": "reports", "kubernetes.io/serviceaccount/uid": "x"})
    assert met(rules, POD) == ["one"]
    assert rules.rules[1].missed(POD) == ("kubernetes.io/serviceaccount/uid",)
    assert rules.rules[1].missed({}) == ("kubernetes.io/namespace", "kubernetes.io/serviceaccount/uid")


@pytest.mark.parametrize(
    ("wanted", "found", "is_met"),
    [
        ("74", "74", True),
        ("74", 74, True),
        ("74", 74.0, False),
        ("true", True, True),
        ("1", True, False),
        ("74", "074", False),
        ("74", " 74", False),
        ("main", "Main", False),
        ("main", ["main"], False),
        ("main", {"main": "main"}, False),
        ("main", None, False),
        ("null", None, False),
        ("é", "e\u0301", False),
    ],
)
def test_a_value_is_compared_as_text_and_exactly(wanted: str, found: Any, is_met: bool) -> None:
    """WIF-02: no list, no other type and no other spelling of a text passes for it."""
    assert bool(met(rules_of({"claim": wanted}), {"claim": found})) is is_met


def test_a_claim_is_named_by_a_pointer() -> None:
    """WIF-02, RFC 6901: a claim whose own name has a slash is written with `~1`, one with a tilde with `~0`."""
    rules = rules_of({"https:~1~1claims.example~1team": "blue", "a~0b": "x"})
    assert met(rules, {"https://claims.example/team": "blue", "a~b": "x"}) == ["one"]
    assert met(rules, {"https:": {"": {"claims.example": {"team": "blue"}}}, "a~b": "x"}) == []


@pytest.mark.parametrize(
    ("wanted", "found", "is_met"),
    [
        ("refs/heads/*", "refs/heads/main", True),
        ("refs/heads/*", "refs/heads/feature/x", False),
        ("refs/*/main", "refs/heads/main", True),
        ("refs/heads/*", "refs/heads/", False),
        ("refs/heads/*", "refs/heads", False),
        ("refs/heads/*", "refs/heads/..", False),
        ("refs/heads/*", "refs/tags/main", False),
        ("spiffe://prod.example/ns/*/sa/web", "spiffe://prod.example/ns/shop/sa/web", True),
        ("spiffe://prod.example/ns/*/sa/web", "spiffe://evil.example/ns/shop/sa/web", False),
        ("spiffe://prod.example/*", "spiffe://prod.example/web", True),
        ("spiffe://prod.example/*", "spiffe://prod.example.evil/web", False),
        ("octo-org/*", "octo-org-evil/app", False),
    ],
)
def test_a_wildcard_stands_for_one_segment(wanted: str, found: str, is_met: bool) -> None:
    """WIF-04."""
    assert bool(met(rules_of({"claim": wanted}), {"claim": found})) is is_met


@pytest.mark.parametrize(
    "wanted",
    ["*", "*/app", "octo-*", "octo-*/app", "octo-org/app-*", "refs/**", "spiffe://*/web", "*://a/b", "a/*b"],
)
def test_a_wildcard_for_the_owner_or_for_part_of_a_segment_is_refused(wanted: str) -> None:
    """WIF-04: it would let in whoever registers a name that begins alike."""
    with pytest.raises(ValueError, match="segment"):
        rules_of({"claim": wanted})
    with pytest.raises(ValueError, match="segment"):
        rules_of({"claim": "x"}, claims={"other": wanted})


@given(st.lists(SEGMENT, min_size=2, max_size=5), st.lists(SEGMENT, min_size=1, max_size=5), st.data())
def test_what_a_wildcard_lets_in_differs_in_its_segments_alone(
    segments: list[str], others: list[str], data: st.DataObject
) -> None:
    """WIF-04: in random paths; there is one thing that stays the same for whatever is let in: all that is written out."""
    assume(not any("://" in "/".join(each) for each in (segments, others)))
    wild = data.draw(st.sets(st.integers(1, len(segments) - 1)))
    pattern = "/".join("*" if n in wild else each for n, each in enumerate(segments))
    rules = rules_of({"claim": pattern})
    changed = [data.draw(SEGMENT) if n in wild else each for n, each in enumerate(segments)]
    assume(not {".", ".."} & {changed[n] for n in wild})
    assert met(rules, {"claim": "/".join(changed)}) == ["one"]
    fixed = [None if n in wild else each for n, each in enumerate(segments)]
    is_alike = len(others) == len(fixed) and all(
        each in (None, other) for each, other in zip(fixed, others, strict=True)
    )
    assume(not {".", ".."} & set(others))
    assert bool(met(rules, {"claim": "/".join(others)})) is is_alike


def test_what_each_assertion_must_say_holds_for_all_rules() -> None:
    """WIF-01: the claims that must equal given values whichever workload it is."""
    rules = rules_of({"ref": "refs/heads/main"}, claims={"repository_owner_id": "65"})
    assert met(rules, JOB) == ["one"]
    assert met(rules, {**JOB, "repository_owner_id": "66"}) == []


def test_a_client_that_is_named_must_be_that_of_the_rule() -> None:
    """WIF-12: and where a workload meets rules of two clients, the request says which."""
    rules = rules_of({"repository_id": "74"}, {"ref": "refs/heads/main"})
    assert met(rules, JOB) == ["one", "two"]
    assert met(rules, JOB, "client-two") == ["two"]
    assert met(rules, JOB, "client-three") == []


@pytest.mark.parametrize(
    ("platform", "pinned", "names"),
    [
        (
            "kubernetes",
            {"kubernetes.io/serviceaccount/uid": "7d3f"},
            {"sub": "system:serviceaccount:reports:nightly"},
        ),
        ("github-actions", {"repository_id": "74"}, {"repository": "octo-org/app", "ref": "refs/heads/main"}),
        ("gitlab", {"project_id": "22"}, {"project_path": "group/project", "ref": "main"}),
    ],
)
def test_a_rule_on_names_alone_is_warned_of(
    platform: str, pinned: Mapping[str, str], names: Mapping[str, str]
) -> None:
    """WIF-03: a name is free again once its owner gives it up; the id that the platform gave it is not."""
    (warning,) = [
        each for each in rules_of(names, platform=platform, reusable=False).warnings() if "rule one" in each
    ]
    assert f"add {next(iter(pinned))}" in warning
    assert rules_of({**names, **pinned}, platform=platform, reusable=False).warnings() == []
    assert rules_of(names, platform=platform, reusable=False, claims=pinned).warnings() == []


def test_what_is_pinned_with_a_wildcard_is_not_pinned() -> None:
    """WIF-03."""
    rules = rules_of({"project_id": "group/*"}, platform="gitlab")
    assert len(rules.warnings()) == 1


def test_an_id_of_a_trust_domain_is_one_that_stays() -> None:
    """WIF-03: SPIFFE has no other name; it needs a trust domain and a path."""
    rules = rules_of({"sub": "spiffe://prod.example/ns/*/sa/web"}, platform="spiffe", reusable=False)
    assert rules.warnings() == []
    for wrong in ("prod.example/web", "spiffe://prod.example", "spiffe:///web", "https://prod.example/web"):
        with pytest.raises(ValueError, match="SPIFFE ID"):
            rules_of({"sub": wrong}, platform="spiffe")


@pytest.mark.parametrize(
    ("platform", "is_reusable"),
    [("kubernetes", True), ("spiffe", True), ("github-actions", False), ("gitlab", False), ("", False)],
)
def test_what_may_be_presented_again_is_shown(platform: str, is_reusable: bool) -> None:
    """WIF-05: where the platform means it so, unless the entry says otherwise."""
    claims = {"sub": "spiffe://prod.example/web"}
    for rules in (rules_of(claims, platform=platform), rules_of(claims, platform="", reusable=is_reusable)):
        assert rules.reusable is is_reusable
        assert any("present it again" in warning for warning in rules.warnings()) is is_reusable
    assert not rules_of(claims, platform=platform, reusable=False).reusable


def test_only_what_a_rule_lists_is_copied() -> None:
    """WIF-13: as far as the assertion has it, and nothing that has a structure."""
    rule = {
        "name": "one",
        "client": "c",
        "claims": {"repository_id": "74"},
        "resources": [API],
        "scopes": ["read"],
    }
    copied = ["repository_id", "run_number", "absent", "kubernetes.io/namespace", "kubernetes.io"]
    (found,) = read({"rules": [{**rule, "copied": copied}]}).rules
    assert found.copies({**JOB, **POD}) == {
        "repository_id": "74",
        "run_number": 10,
        "kubernetes.io/namespace": "reports",
    }
    (found,) = read({"rules": [rule]}).rules
    assert found.copies(JOB) == {}


RIGHT: Mapping[str, Any] = {
    "name": "nightly",
    "client": "reports",
    "claims": {"repository_id": "74"},
    "resources": [API],
    "scopes": ["read"],
}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "rules: must be a list"),
        ({"rules": []}, "rules: must be a list"),
        ({"rules": {}}, "rules: must be a list"),
        ({"rules": ["x"]}, "rule 1 is no object"),
        ({"rules": [RIGHT], "platform": "kubernets"}, "platform: must be one of"),
        ({"rules": [RIGHT], "platform": ["spiffe"]}, "platform: must be one of"),
        ({"rules": [RIGHT], "rule": []}, "rule: there is no such member"),
        ({"rules": [RIGHT], "reusable": "yes"}, "reusable"),
        ({"rules": [RIGHT], "audience": 7}, "audience"),
        ({"rules": [RIGHT], "claims": ["x"]}, "claims: must be an object"),
        ({"rules": [{**RIGHT, "claims": {}}]}, "must name a claim at least"),
        ({"rules": [{**RIGHT, "claims": {"iss": "x"}}]}, "iss: is checked anyway"),
        ({"rules": [{**RIGHT, "claims": {"jti/x": "x"}}]}, "jti/x: is checked anyway"),
        ({"rules": [{**RIGHT, "claims": {"sub": ""}}]}, "sub: must be a text"),
        ({"rules": [{**RIGHT, "claims": {"sub": 74}}]}, "sub: must be a text"),
        ({"rules": [{**RIGHT, "claims": {"sub": "a\nb"}}]}, "sub: must be a text"),
        ({"rules": [{**RIGHT, "claim": {}}]}, "claim: there is no such member"),
        ({"rules": [{**RIGHT, "resources": []}]}, "resources: must name one"),
        ({"rules": [{**RIGHT, "resources": API}]}, "resources: must be a list"),
        ({"rules": [{**RIGHT, "scopes": []}]}, "scopes: must name one"),
        ({"rules": [{**RIGHT, "scopes": ["read", "read"]}]}, "names one twice"),
        ({"rules": [{**RIGHT, "client": ""}]}, "client: must be a text"),
        ({"rules": [{**RIGHT, "name": "two words"}]}, "name: must be up to 100 letters"),
        ({"rules": [{**RIGHT, "name": "workload:x"}]}, "name: must be up to 100 letters"),
        ({"rules": [RIGHT, {**RIGHT, "claims": {"sub": "x"}}]}, "two of one name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_say_nothing_clear_are_refused(options: Mapping[str, Any], problem: str) -> None:
    """WIF-01, WIF-02: in a sentence that names the place, before anything is trusted."""
    with pytest.raises(ValueError, match=problem):
        read(options)
