"""Step-up authentication (RFC 9470): a client or its scopes may demand certain methods, or a recent sign-in.

An API that needs a stronger or a more recent sign-in answers 401 with `acr_values` or `max_age`. The client repeats them in
an authorization request, which leads to the sign-in page unless the present sign-in is enough. The tokens have the reached
level as `acr`. OIDC Core has the same parameters (Core, 3.1.2.1), and `prompt`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar

from authserver.api import (
    AuthenticationStep,
    Client,
    Decision,
    Described,
    Parameter,
    Parameters,
    Session,
    SignIn,
    User,
    allow,
    deny,
    did_you_mean,
    hookimpl,
    narrow,
)
from authserver.api import translatable as _

UNMET = "unmet_authentication_requirements"
LOGIN_REQUIRED = "login_required"
INVALID = "invalid_request"
# A value of `acr_values`. Challenges quote it, so it has no quotation mark and no backslash (RFC 9110, 5.6.4).
_LEVEL = re.compile(r"[!#-\[\]-~]{1,100}")
# A method of a sign-in, as in `amr` (RFC 8176); in a setting, `+` and white space separate methods.
_METHOD = re.compile(r"[!#-*\--\[\]-~]{1,100}")
# A number of seconds; ten digits are about three centuries.
_SECONDS = re.compile(r"[0-9]{1,10}")
MAXIMUM_VALUES = 20
# How many seconds the clocks of our processes may differ. A sign-in that is further in the future was made before the clock
# was set back, so its age is not known (T150).
_APART = 60


TOO_OLD = _("You signed in some time ago. This application asks for a more recent sign-in.")
TOO_WEAK = _("What this application asks for needs a stronger sign-in.")


class _Malformed(Exception):
    """A parameter has a value that it cannot have."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Level:
    """A level of sign-in.

    Attributes:
        name: its `acr`.
        ways: the alternative sets of methods; all methods of one set reach the level.
        seconds: how many seconds after the sign-in the level ends; None: it lasts as long as the session.
    """

    name: str
    ways: tuple[frozenset[str], ...]
    seconds: int | None

    @classmethod
    def read(cls, name: str, text: str) -> Level:
        """Read a line `name = method+method method, seconds`. Raises ValueError."""
        if not _LEVEL.fullmatch(name):
            raise ValueError(
                f"levels: {name}: a name has 1 to 100 letters, digits or signs, and no space, quotation mark or backslash"
            )
        methods, comma, age = text.partition(",")
        ways = tuple(frozenset(way.split("+")) for way in methods.split())
        if not ways or not all(_METHOD.fullmatch(method) for way in ways for method in way):
            raise ValueError(
                f"levels: {name}: name the methods that give it, such as `pwd`, `pwd+otp` for both, or `pwd+otp hwk` for "
                "either"
            )
        seconds = age.strip()
        if comma and not (_SECONDS.fullmatch(seconds) and int(seconds) > 0):
            raise ValueError(f"levels: {name}: after the comma comes a number of seconds, 1 or more")
        return cls(name, ways, int(seconds) if comma else None)

    def is_reached(self, methods: frozenset[str], age: float) -> bool:
        """Whether a sign-in by these methods, with this age in seconds, reaches the level."""
        return any(way <= methods for way in self.ways) and _is_within(age, self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """The wishes of a request for the sign-in: `seconds` is the greatest age, None for any; `levels` has the best first."""

    seconds: int | None
    levels: tuple[str, ...]
    silent: bool
    scopes: tuple[str, ...]


@dataclass(frozen=True)
class StepUp:
    """Demand the sign-in that a request asks for, or that its scopes need (RFC 9470).

    Attributes:
        levels: lines from the weakest level to the strongest: `name = methods`, or `name = methods, seconds` for a level
            that ends so many seconds after the sign-in. The methods are those that the sign-in plugins name (`amr`, RFC
            8176): `pwd+otp` needs both methods, `pwd+otp hwk` needs either both or the last one. A sign-in that reaches a
            level reaches the levels in the lines above, too.
        scopes: lines `scope = level`: a person who grants this scope must have signed in at this level or a stronger one.
        essential: whether a request for levels is refused if even a new sign-in reaches none of them (RFC 9470, 5).
            Otherwise the client gets its token, and `acr` says which level was reached.
        wished_with: scopes with which levels are only wishes, so that the request is never refused because of them, as in
            OIDC Core, 3.1.2.1.
    """

    immediate: ClassVar[bool] = True
    reasons: ClassVar[Mapping[str, str]] = {
        "max-age-malformed": "",
        "acr-values-malformed": "",
        "prompt-malformed": "",
        "nobody-signed-in": "",
        "sign-in-first": "",
        "sign-in-suffices": "",
        "sign-in-too-old": "",
        "level-not-reached": (
            "authserver.plugin.step_up.levels says which methods reach a level, and a plugin in authserver.plugins must sign "
            "people in with them; or set authserver.plugin.step_up.essential = false"
        ),
        "level-unknown": (
            "list the level in authserver.plugin.step_up.levels, or set authserver.plugin.step_up.essential = false"
        ),
        "scope-needs-level": (
            "the client must name the scope in an authorization request: authserver.plugin.step_up.scopes says which level "
            "of sign-in it needs"
        ),
    }
    described: ClassVar[Mapping[str, Described]] = {
        "code_details": Described(
            members={
                "acr_values": Parameter(
                    description="Levels of the sign-in, the best first; one of them is needed (RFC 9470, 4).",
                    schema={"type": "string"},
                ),
                "max_age": Parameter(
                    description="How many seconds ago the sign-in may be (RFC 9470, 4).",
                    schema={"type": "string", "pattern": f"^{_SECONDS.pattern}$"},
                ),
                "prompt": Parameter(
                    description=(
                        "`none`: no page may be shown; `login`: a new sign-in is needed (OIDC Core, 3.1.2.1)."
                    ),
                    schema={"type": "string"},
                ),
            }
        )
    }

    levels: tuple[tuple[str, str], ...]
    scopes: tuple[tuple[str, str], ...] = ()
    essential: bool = True
    wished_with: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.levels:
            raise ValueError("levels: name at least one, such as `password = pwd`")
        if len(self._levels) < len(self.levels):
            raise ValueError("levels: two lines name the same level")
        for scope, level in self.scopes:
            if level not in self._levels:
                hint = did_you_mean(level, self._levels, "")
                raise ValueError(f"scopes: {scope}: levels has no {level}; {hint}")

    @cached_property
    def _levels(self) -> Mapping[str, Level]:
        """The levels by name, from the weakest to the strongest."""
        return {name: Level.read(name, text) for name, text in self.levels}

    @cached_property
    def _level_of(self) -> Mapping[str, str]:
        """The level that a scope needs, by the scope."""
        return dict(self.scopes)

    @cached_property
    def _rank(self) -> Mapping[str, int]:
        return {name: rank for rank, name in enumerate(self._levels)}

    @hookimpl
    def server_metadata(self) -> Mapping[str, Any]:
        return {"acr_values_supported": list(self._levels)}

    @hookimpl
    def authentication_decision(
        self, session: Session | None, is_fresh: bool, parameters: Parameters
    ) -> Decision[AuthenticationStep | SignIn] | None:
        try:
            wanted = _read(parameters)
        except _Malformed as malformed:
            # A mistake is told to the client only after somebody has signed in (OAuth 2.1, 7.13.2).
            if session is None:
                return allow("sign-in-first", AuthenticationStep.GO_ON)
            return deny(malformed.reason, INVALID)
        if session is None:
            return deny("nobody-signed-in", LOGIN_REQUIRED) if wanted.silent else None
        # A sign-in that was made for this request is as recent as possible.
        age = 0.0 if is_fresh else (datetime.now(UTC) - session.authenticated_at).total_seconds()
        if not is_fresh and (wanted.seconds == 0 or not _is_within(age, wanted.seconds)):
            return _again(wanted, reason="sign-in-too-old", why=TOO_OLD)
        reached = self._reached(session, age)
        acr = self._level_for(wanted, reached)
        if acr is not None or self._may_go_on(wanted, reached, is_fresh):
            names = list(self._levels)
            highest = names[reached] if reached >= 0 else None
            return allow("sign-in-suffices", SignIn(acr=acr or highest, silent=wanted.silent))
        if self._is_unknown(wanted):
            return deny("level-unknown", UNMET)
        if is_fresh and not wanted.silent:
            return deny("level-not-reached", UNMET)
        return _again(wanted, reason="level-not-reached", why=TOO_WEAK)

    @hookimpl
    def scope_decision(
        self, client: Client, user: User | None, grant_type: str, requested: tuple[str, ...]
    ) -> Decision[tuple[str, ...]] | None:
        """Remove scopes that need a level if the sign-in was not checked.

        It was not checked for a request without `scope`, or if the person comes from an assertion or another token.
        """
        if not self.scopes or user is None:
            return None
        if requested and grant_type in ("authorization_code", "refresh_token"):
            return None
        open_to_all = [scope for scope in requested or client.scopes if scope not in self._level_of]
        return narrow("scope-needs-level", tuple(open_to_all))

    def _reached(self, session: Session, age: float) -> int:
        """The rank of the strongest level that this sign-in reaches; -1 for none."""
        methods = frozenset(session.details.get("amr", ()))
        ranks = [self._rank[level.name] for level in self._levels.values() if level.is_reached(methods, age)]
        return max(ranks, default=-1)

    def _needed(self, wanted: _Wanted) -> int:
        """The rank of the strongest level that the scopes need; -1 for none."""
        levels = [self._level_of[scope] for scope in wanted.scopes if scope in self._level_of]
        return max((self._rank[level] for level in levels), default=-1)

    def _level_for(self, wanted: _Wanted, reached: int) -> str | None:
        """The first requested level that is reached and is strong enough for the scopes (OIDC Core, 2)."""
        needed = self._needed(wanted)
        return next(
            (name for name in wanted.levels if needed <= self._rank.get(name, len(self._rank)) <= reached),
            None,
        )

    def _may_go_on(self, wanted: _Wanted, reached: int, is_fresh: bool) -> bool:
        """Whether the request may continue although `_level_for` found no level."""
        if reached < self._needed(wanted):
            return False
        known = [self._rank[name] for name in wanted.levels if name in self._rank]
        # No level is requested; or one is reached, and the stronger level that the scopes need is reached, too.
        if not wanted.levels or any(rank <= reached for rank in known):
            return True
        return not self._is_essential(wanted) and (is_fresh or not known)

    def _is_essential(self, wanted: _Wanted) -> bool:
        """Whether this request is refused if none of its levels is reached."""
        return self.essential and not any(scope in self.wished_with for scope in wanted.scopes)

    def _is_unknown(self, wanted: _Wanted) -> bool:
        """Whether the request must be refused because all its levels are unknown here, so that no sign-in reaches one."""
        return (
            bool(wanted.levels)
            and self._is_essential(wanted)
            and not any(name in self._rank for name in wanted.levels)
        )


def _again(wanted: _Wanted, *, reason: str, why: str) -> Decision[SignIn]:
    """A new sign-in, or the refusal of a request that may show no page (OIDC Core, 3.1.2.6)."""
    if wanted.silent:
        return deny(reason, LOGIN_REQUIRED)
    return allow(reason, SignIn(step=AuthenticationStep.SIGN_IN_AGAIN, why=why))


def _is_within(age: float, seconds: int | None) -> bool:
    """Whether a sign-in of this age in seconds is recent enough."""
    return seconds is None or -_APART <= age <= seconds


def _read(parameters: Parameters) -> _Wanted:
    """The wishes of the request for the sign-in. Raises _Malformed."""
    max_age = parameters.get("max_age")
    if max_age is not None and not _SECONDS.fullmatch(max_age):
        raise _Malformed(reason="max-age-malformed")
    levels = (parameters.get("acr_values") or "").split(" ")
    named = tuple(dict.fromkeys(filter(None, levels)))
    if len(named) > MAXIMUM_VALUES or not all(_LEVEL.fullmatch(name) for name in named):
        raise _Malformed(reason="acr-values-malformed")
    # The other values of OIDC Core have no effect here.
    prompt = set(filter(None, (parameters.get("prompt") or "").split(" ")))
    if "none" in prompt and len(prompt) > 1:
        raise _Malformed(reason="prompt-malformed")
    seconds = 0 if "login" in prompt else None if max_age is None else int(max_age)
    return _Wanted(
        seconds=seconds,
        levels=named,
        silent="none" in prompt,
        scopes=tuple((parameters.get("scope") or "").split(" ")),
    )
