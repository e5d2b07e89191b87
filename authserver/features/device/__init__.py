"""The device grant (RFC 8628): a program without a browser shows a code, and a person types it on a telephone.

The device asks and polls (`protocol`), and the person types the code and answers (`pages`). Both work on one small record
(`requests`), which only one request at a time can change. An agreement makes a grant like that of the consent page, and the
device code redeems it once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pyramid.config import Configurator
from pyramid.response import Response

from authserver.api import (
    RESOURCE_PARAMETER,
    TEXT,
    Client,
    Described,
    Engine,
    Issue,
    Parameter,
    Parameters,
    Redeem,
    Request,
    hookimpl,
    json_response,
    own_url,
    read_form,
)
from authserver.features.device import pages, protocol
from authserver.features.device.protocol import (
    GRANT_TYPE,
    AuthorizationPending,
    Denied,
    ExpiredToken,
    SlowDown,
)
from authserver.features.device.requests import Rules

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeviceGrant:
    """Let devices without a browser get tokens: their user signs in on another one, at `/device` (RFC 8628).

    A client must be registered for the grant type. An attacker can talk people into typing the code of the attacker's
    device. Therefore the page says from where and when the code was asked for, and requires a recent sign-in.

    Attributes:
        lifetime: seconds until the codes expire, 60 to 900; a person must answer at least an `interval` before that.
        interval: seconds that a device waits between two polls, 5 to 60.
        age_for_approving: for how many seconds after a sign-in somebody may answer, 60 to 86400; after that they must sign
            in again.
        self_registered: whether clients that registered themselves, or describe themselves at their address, may use it.
        refused_groups: groups of people whose members cannot connect a device.
    """

    immediate: ClassVar[bool] = True
    described: ClassVar[Mapping[str, Described]] = {
        GRANT_TYPE: Described(
            members={
                "device_code": Parameter(
                    description="The device code (RFC 8628, 3.4).", schema=TEXT, required=True
                ),
                "resource": RESOURCE_PARAMETER,
            },
            errors=(AuthorizationPending, SlowDown, Denied, ExpiredToken),
        )
    }
    reasons: ClassVar[Mapping[str, str]] = {
        "authorization_pending": "",
        "code-challenge-at-device": "",
        "device-client-not-allowed": (
            "authserver.plugin.device_grant.self_registered also allows clients that no operator registered"
        ),
        "device-code-of-another-client": "",
        "device-code-unknown": "",
        "device-code-used": "",
        "device-denied": "",
        "device-group-refused": "authserver.plugin.device_grant.refused_groups names a group that the person is in",
        "device-request-answered": "",
        "device-request-expired": "authserver.plugin.device_grant.lifetime says how long a code can be used",
        "expired_token": "authserver.plugin.device_grant.lifetime says how long a code can be used",
        "nonce-at-device": "",
        "request-object-at-device": "",
        "slow_down": "",
        "user-code-unknown": "",
    }

    lifetime: int = 600
    interval: int = 5
    age_for_approving: int = 900
    self_registered: bool = False
    refused_groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ("lifetime", 60, 900),
            ("interval", 5, 60),
            ("age_for_approving", 60, 86_400),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}: must be {low} to {high} seconds")
        if self.lifetime < 2 * self.interval:
            raise ValueError(
                "lifetime: must be at least twice the interval; otherwise no device gets an answer in time"
            )

    @property
    def rules(self) -> Rules:
        """The settings in the form that the modules of this feature use."""
        return Rules(
            lifetime=self.lifetime,
            interval=self.interval,
            age_for_approving=self.age_for_approving,
            self_registered=self.self_registered,
            refused_groups=frozenset(self.refused_groups),
        )

    @hookimpl
    def grant_types(self) -> Mapping[str, Redeem]:
        return {GRANT_TYPE: self.redeem}

    @hookimpl
    def includeme(self, config: Configurator) -> None:
        if not config.registry.application.parts.policies.serves("rate_decision"):
            log.warning(
                "device_grant: no plugin limits how often somebody can guess codes; list a plugin that serves rate_decision"
            )
        config.add_endpoint(protocol.ROUTE, self.ask)
        pages.includeme(config, self.rules)

    def ask(self, request: Request) -> Response:
        """POST /oauth/device_authorization: a device asks for its two codes."""
        page = own_url(request, pages.TYPE.name)
        return json_response(protocol.ask(request.engine, read_form(request), self.rules, page))

    def redeem(self, engine: Engine, client: Client, parameters: Parameters) -> Issue:
        """A device polls with its code (RFC 8628, 3.4 and 3.5)."""
        return protocol.redeem(engine, client, parameters, self.rules)
