"""The platforms of workloads: which claim identifies a workload for ever, and how often an assertion is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._*-]+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A platform.

    Attributes:
        name: its name in entries; empty for any other platform.
        pinned_by: the claim that identifies one workload for ever; names can be reused. Empty: not known.
        reusable: whether one assertion is presented many times by design, unless an entry sets it.
    """

    name: str
    pinned_by: str = ""
    reusable: bool = False

    def check(self, claim: str, wanted: str, at: str) -> None:
        """Refuse a value that no assertion of this platform can have. Raises ValueError."""
        if self is SPIFFE and claim == "sub" and not _SPIFFE_ID.fullmatch(wanted):
            raise ValueError(
                f"{at}: sub: must be a SPIFFE ID with a path, such as spiffe://example.org/ns/web"
            )


# The kubelet renews a projected token when a fifth of its lifetime is left, and a container presents it until then. A
# service account that is deleted and made again has the same name, but another uid.
KUBERNETES = Platform(name="kubernetes", pinned_by="kubernetes.io/serviceaccount/uid", reusable=True)
# Each job asks for its own. The new owner of the name of a renamed owner or repository gets its `sub`.
GITHUB_ACTIONS = Platform(name="github-actions", pinned_by="repository_id")
GITLAB = Platform(name="gitlab", pinned_by="project_id")
# A JWT-SVID need not have a `jti`, and is cached by its workload. The trust domain keeps an id for one workload.
SPIFFE = Platform(name="spiffe", reusable=True)
OTHER = Platform(name="")

PLATFORMS: Mapping[str, Platform] = {
    each.name: each for each in (KUBERNETES, GITHUB_ACTIONS, GITLAB, SPIFFE, OTHER)
}
