"""Rules for workloads: the required values of claims in an assertion, and the resources and scopes that follow.

A claim is named as in a JSON Pointer (RFC 6901) without its first slash: `repository_id`, or
`kubernetes.io/serviceaccount/uid` for a member of a member. Its value is compared as text and exactly; `*` matches one
whole segment of a path, and never the first one, which names the owner of the path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from authserver.features.workload_identity.platforms import PLATFORMS, Platform

# The claims about issuer, audience and time, which the entry of the issuer checks.
_HELD_ELSEWHERE = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti"})
_MAXIMUM_TEXT = 1000
_PRINCIPAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ABSENT = object()
ANY_SEGMENT = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule: how a workload is recognised, and its resources and scopes.

    Attributes:
        name: the name of the service principal, which is in the `sub` of its tokens.
        client: the `client_id` of the client that it acts as.
        claims: the required values of claims of the assertion, by name.
        resources: the resources that its tokens may be for.
        scopes: the scopes that its tokens have at most.
        copied: the claims of the assertion that its tokens repeat.
    """

    name: str
    client: str
    claims: Mapping[str, str]
    resources: tuple[str, ...]
    scopes: tuple[str, ...]
    copied: tuple[str, ...] = ()

    def missed(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the claims without the required values; empty if the rule is met."""
        return missed(self.claims, claims)

    def copies(self, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """The claims that its tokens repeat, by their names, as far as the assertion has them as text, number or flag."""
        found = {name: claim_at(claims, name) for name in self.copied}
        return {name: value for name, value in found.items() if _text_of(value) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The options of an entry for an issuer of workloads.

    Attributes:
        platform: the platform that issues the assertions.
        audience: the required `aud`; empty: the issuer of this server.
        reusable: whether an assertion may be presented again until it ends, and needs no `jti`.
        claims: the required values of claims of every assertion, for all rules.
        rules: the rules, in no order: an assertion must meet exactly one.
    """

    platform: Platform
    audience: str = ""
    reusable: bool = False
    claims: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...]

    def met(self, claims: Mapping[str, Any], client_id: str | None) -> tuple[Rule, ...]:
        """The rules that these claims meet, of this client if one is named."""
        if missed(self.claims, claims):
            return ()
        return tuple(
            rule for rule in self.rules if client_id in (None, rule.client) and not rule.missed(claims)
        )

    def warnings(self) -> list[str]:
        """Warnings for operators about these rules, one sentence each."""
        found = [
            f"rule {rule.name}: {' and '.join(sorted({*rule.claims, *self.claims}))} can come to name somebody else; "
            f"add {self.platform.pinned_by}"
            for rule in self.rules
            if self.platform.pinned_by and not self._pins(rule)
        ]
        if self.reusable:
            found.append("reusable: whoever gets hold of an assertion can present it again until it ends")
        return found

    def _pins(self, rule: Rule) -> bool:
        values = {**rule.claims, **self.claims}
        return ANY_SEGMENT not in values.get(self.platform.pinned_by, ANY_SEGMENT)


def read(options: Mapping[str, Any]) -> Rules:
    """The rules in the options of an entry. Raises ValueError, with a sentence."""
    _only(options, {"platform", "audience", "reusable", "claims", "rules"}, "")
    name = options.get("platform", "")
    platform = PLATFORMS.get(name) if isinstance(name, str) else None
    if platform is None:
        raise ValueError(f"platform: must be one of {', '.join(filter(None, PLATFORMS))}, or absent")
    entries = options.get("rules")
    if not isinstance(entries, list | tuple) or not entries:
        raise ValueError("rules: must be a list with a rule at least")
    rules = tuple(_rule(number, entry, platform) for number, entry in enumerate(entries, start=1))
    if len({(rule.name, rule.client) for rule in rules}) < len(rules):
        raise ValueError("rules: two of one name are for one client; their claims belong into one")
    reusable = options.get("reusable", platform.reusable)
    if not isinstance(reusable, bool):
        raise ValueError("reusable: must be true or false")
    return Rules(
        platform=platform,
        audience=_text(options.get("audience", ""), "audience", empty=True),
        reusable=reusable,
        claims=_wanted(options.get("claims", {}), "claims", platform),
        rules=rules,
    )


def missed(wanted: Mapping[str, str], claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the claims without the required value."""
    return tuple(name for name, value in wanted.items() if not _is(value, claim_at(claims, name)))


def claim_at(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of this name, a JSON Pointer without its first slash; a value that is no JSON if there is none."""
    found: Any = claims
    for part in name.split("/"):
        if not isinstance(found, Mapping):
            return _ABSENT
        found = found.get(part.replace("~1", "/").replace("~0", "~"), _ABSENT)
    return found


def _is(wanted: str, found: Any) -> bool:
    text = _text_of(found)
    if text is None:
        return False
    if ANY_SEGMENT not in wanted:
        return text == wanted
    pattern, segments = _segments(wanted), _segments(text)
    return len(pattern) == len(segments) and all(
        segment not in ("", ".", "..") if each == ANY_SEGMENT else segment == each
        for each, segment in zip(pattern, segments, strict=True)
    )


def _text_of(value: Any) -> str | None:
    """The text of a claim for comparison: a text itself, a whole number or a flag as in JSON; None for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def _segments(text: str) -> list[str]:
    """The segments of a path, of which the first names its owner: with a URI, scheme and authority."""
    scheme, separator, rest = text.partition("://")
    if not separator or "/" in scheme:
        return text.split("/")
    authority, *path = rest.split("/")
    return [f"{scheme}://{authority}", *path]


def _rule(number: int, entry: Any, platform: Platform) -> Rule:
    if not isinstance(entry, Mapping):
        raise ValueError(f"rules: rule {number} is no object")
    name = _text(entry.get("name"), f"rules: rule {number}: name")
    if not _PRINCIPAL.fullmatch(name):
        raise ValueError(
            f"rules: rule {number}: name: must be up to 100 letters, digits, dots, hyphens and underscores"
        )
    at = f"rules: {name}"
    _only(entry, {"name", "client", "claims", "resources", "scopes", "copied"}, f"{at}: ")
    claims = _wanted(entry.get("claims"), f"{at}: claims", platform)
    if not claims:
        raise ValueError(
            f"{at}: claims: must name a claim at least, or every workload of the issuer is meant"
        )
    copied = _texts(entry.get("copied", []), f"{at}: copied")
    return Rule(
        name=name,
        client=_text(entry.get("client"), f"{at}: client"),
        claims=claims,
        resources=_some(entry.get("resources"), f"{at}: resources"),
        scopes=_some(entry.get("scopes"), f"{at}: scopes"),
        copied=copied,
    )


def _wanted(value: Any, at: str, platform: Platform) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{at}: must be an object: the name of each claim, and its value")
    found: dict[str, str] = {}
    for name, wanted in value.items():
        if name.split("/")[0] in _HELD_ELSEWHERE:
            raise ValueError(f"{at}: {name}: is checked anyway, and is no claim for a rule")
        found[name] = _text(wanted, f"{at}: {name}")
        _check_pattern(found[name], f"{at}: {name}")
        platform.check(name, found[name], at)
    return found


def _check_pattern(wanted: str, at: str) -> None:
    first, *others = _segments(wanted)
    if ANY_SEGMENT in first:
        raise ValueError(f"{at}: the first segment says whose path it is, and must be written out")
    if any(ANY_SEGMENT in segment and segment != ANY_SEGMENT for segment in others):
        raise ValueError(f"{at}: `*` stands for a whole segment of the path, and not for part of one")


def _only(value: Mapping[str, Any], known: set[str], at: str) -> None:
    for name in value:
        if name not in known:
            raise ValueError(f"{at}{name}: there is no such member; there are {', '.join(sorted(known))}")


def _text(value: Any, at: str, *, empty: bool = False) -> str:
    if (
        not isinstance(value, str)
        or not (value or empty)
        or len(value) > _MAXIMUM_TEXT
        or not value.isprintable()
    ):
        raise ValueError(f"{at}: must be a text of up to {_MAXIMUM_TEXT} characters")
    return value


def _texts(value: Any, at: str) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{at}: must be a list of texts")
    found = tuple(_text(each, at) for each in value)
    if len(set(found)) < len(found):
        raise ValueError(f"{at}: names one twice")
    return found


def _some(value: Any, at: str) -> tuple[str, ...]:
    found = _texts(value if value is not None else [], at)
    if not found:
        raise ValueError(f"{at}: must name one at least")
    return found
