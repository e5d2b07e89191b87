"""The browser and system of a User-Agent, in words for people; only a hint, because anybody can send any text."""

from __future__ import annotations

from dataclasses import dataclass

from ua_parser import Domain, Parser, Resolver
from ua_parser.basic import Resolver as BasicResolver
from ua_parser.loaders import load_lazy_builtins


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A program such as `Firefox` and a system such as `Linux`; "" if it is not recognised."""

    program: str
    system: str


# A fixed choice, because the default of the library depends on other installed packages.
_RESOLVER: Resolver = BasicResolver(load_lazy_builtins())
_PARSER = Parser(_RESOLVER)


def device_of(user_agent: str) -> Device:
    """The device of a User-Agent, whose length is limited (`limits.MAXIMUM_USER_AGENT`)."""
    found = _PARSER(user_agent, Domain.USER_AGENT | Domain.OS)
    return Device(
        program=found.user_agent.family if found.user_agent else "",
        system=found.os.family if found.os else "",
    )
