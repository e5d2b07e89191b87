"""GET /health/live and /health/ready, for supervisors and load balancers."""

from __future__ import annotations

import logging

from pyramid.response import Response
from pyramid.view import view_config

from authserver.engine.ports import StorageUnavailable
from authserver.settings import SettingsError
from authserver.web.json import json_response
from authserver.web.request import Request

log = logging.getLogger(__name__)


@view_config(route_name="live", request_method="GET")
def live(request: Request) -> Response:
    """Liveness: 200 while the process answers; the database is not asked (T114)."""
    return json_response({"status": "ok"})


@view_config(route_name="ready", request_method="GET")
def ready(request: Request) -> Response:
    """Readiness: 200 if the database answers in time and has the tables of this version, unless the process ends (R-18)."""
    if request.application.ending.has_begun:
        return json_response({"status": "ending"}, status=503, Retry_After="5")
    try:
        request.application.probe_database()
    except (StorageUnavailable, SettingsError) as error:
        log.warning("not ready: %s", error)
    except Exception:
        log.exception("not ready")
    else:
        return json_response({"status": "ok"})
    return json_response({"status": "unavailable"}, status=503, Retry_After="5")
