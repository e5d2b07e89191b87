"""Hides the endpoints for operators from networks that are not theirs (`authserver.admin_networks`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from ipaddress import ip_network

from pyramid.httpexceptions import HTTPNotFound

from authserver.web.forwarding import address_of
from authserver.web.request import Request

log = logging.getLogger(__name__)


def hiding(networks: Sequence[str]) -> Callable[[Request], None]:
    """A function that raises HTTPNotFound for a request for such an endpoint (`Route.administers`) from elsewhere.

    Args:
        networks: `authserver.admin_networks`; empty: nothing is hidden.
    """
    allowed = tuple(map(ip_network, networks))

    def hide(request: Request) -> None:
        if not allowed or request.route is None or not request.route.administers:
            return
        # That of the client, if a trusted proxy told it (`web.forwarding`). A Unix socket has none.
        address = address_of(request.environ.get("REMOTE_ADDR") or "")
        if address is None or not any(address in network for network in allowed):
            log.info(
                "%s is not in authserver.admin_networks, so there is nothing at %s",
                address or "no address",
                request.route.path,
            )
            raise HTTPNotFound()

    return hide
