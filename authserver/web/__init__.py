"""HTTP: reads requests into values, calls the engine, and renders the outcome. The rules of OAuth are not here."""

from __future__ import annotations

from pyramid.config import Configurator

# The layers around a view, from the outside in; `docs/concepts.rst` shows how a request ends. The tween of
# Pyramid for exceptions is not used: `refusals` calls the exception views, after the transaction has ended and
# the event of the refusal is written.
#
#   last_resort   finds the client's address in the headers of proxies (`forwarding`); answers when anything below fails;
#                 repeats the request when the database asks for that
#     headers     refuses other hosts and plain http; adds the headers of every answer
#       refusals  records the refusal or failure, then asks the exception view for the answer
#         direct  calls the view, in a transaction of its own, for endpoints of programs and pages on the way to a client
#         tm      begins the transaction of another page, and commits it unless the view raised
#           the view
TWEENS = (
    "authserver.web.headers.tween_factory",
    "authserver.web.refusals.tween_factory",
    "authserver.web.direct.tween_factory",
    "pyramid_tm.tm_tween_factory",
)


def includeme(config: Configurator) -> None:
    """Add the routes, the tweens around every request, the pages and the views of this package."""
    config.include("authserver.web.request")
    config.include("authserver.web.routes")
    config.include("authserver.web.forwarding")
    config.include("authserver.web.request_ids")
    config.include("authserver.web.caller")
    config.include("authserver.web.session")
    config.include("authserver.web.refusals")
    config.include("authserver.web.cross_origin")
    config.include("authserver.web.headers")
    config.include("authserver.web.shared_answers")
    config.include("authserver.web.last_resort")
    config.include("authserver.web.pages")
    config.include("authserver.web.metadata")
    config.scan("authserver.web")
