"""Whatever is sent to whichever endpoint: an answer of ours, never a failure, a trace, a secret or a wrong redirect.

`make fuzz` sends many more. What must be true after each message is in `World`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

from hypothesis import example, given

from authserver.explaining.remedies import REMEDIES, WITHOUT_REMEDY
from tests.fuzzing.conftest import IS_LONG, REPORT, examples
from tests.fuzzing.messages import METHODS, WEIGHTS, anywhere, messages
from tests.fuzzing.world import Known, Message, World
from tests.test_remedies import failures

# Reasons that one message to this server does not come to, whatever is in it, by why that is so.
ELSEWHERE: Mapping[str, Collection[str]] = {
    "a plugin, the database or the machine fails (tests/web/test_faulty_plugins.py and others let them)": (
        *failures(), "server_error", "storage-unavailable", "too-busy", "two-bindings", "unexpected-error", "claim-of-tokens",
    ),
    "two requests at the same time (tests/faults races them)": (
        "client-changed-meanwhile", "grant-ended", "session-ended", "parent-grant-revoked", "parent-grant-unknown",
    ),
    "many requests before it, or a limit that is reached (tests/features/test_rate_limits.py and others)": (
        "too-many-unused-clients", "slow_down", *(f"limit-{number}" for number in range(14)), "temporarily_unavailable",
    ),
    "a letter, of which this server sends none (tests/engine/test_password_links.py)": (
        "link-before-restore", "link-expired", "link-groups-changed", "link-malformed", "link-password-changed",
        "link-unknown", "link-used", "no-mail-address",
    ),
    "a database that was restored (tests/engine/test_initial_tokens.py)": ("initial-access-token-restored",),
    "a store of limits that is down (tests/features/test_shared_limits.py)": ("limits-store-down",),
    "the plugin step_up, which this server has, answers first (tests/features/test_openid_sign_in.py)": (
        "openid-nobody-signed-in", "openid-sign-in-again", "openid-sign-in-suffices",
        "openid-sign-in-too-old",
    ),
    "a page that asks for a sign-in, of which there is no event (tests/features/test_step_up.py)": (
        "sign-in-first", "sign-in-too-old",
    ),
    "scopes that need a level of sign-in (tests/features/test_step_up.py)": ("scope-needs-level",),
    "an operator, not a message": (
        "operator", "core-floor", "origin-malformed", "resource-gone",
        "issuer-resource-not-allowed", "issuer-scope-not-allowed", "workload-rules-refused",
        "workload-client-not-of-operator", "device-client-not-allowed", "device-group-refused",
    ),
    "other settings or policies than those of this server": (
        # A policy that refuses a person's consent; none that is shipped does.
        "access_denied",
        # Policies that let a client through whose credentials prove nothing; the shipped ones do not.
        "client-refused",
        # authserver.strict_registration; without it, what is not offered is left out.
        "not-everything-offered",
        # No grant type, or no scope, is left of a registration: the policies refuse it before, or give others.
        "no-grant-type", "no-scope", "scope-not-open",
        # A statement that must be there: another setting of its plugin.
        "software-statement-missing",
        # A scheme that only a plugin permits, in a registration that an operator makes: clients lose it without a word.
        "private-use-not-allowed",
    ),
    "two tokens that are bound to two keys (tests/features/test_token_exchange.py)": ("two-keys",),
    "the error always has a closer reason than its code": (
        "insufficient_scope", "insufficient_user_authentication", "invalid_client", "invalid_dpop_proof", "invalid_grant",
        "invalid_request_uri", "invalid_software_statement", "invalid_token", "unapproved_software_statement",
    ),
}  # fmt: skip
# How many messages an endpoint gets, for each point of its weight.
EACH = 610 if IS_LONG else 14


def test_no_message_to_an_endpoint_breaks_it(world: World) -> None:
    """T013, T015, T083, T086, T099, T137, T138, A-04, B-02, R-04: right messages to each endpoint of the route table, and changed ones."""
    routes = [*world.routes.values(), *world.server.wsgi.registry.folders.values()]
    assert {"authorize", "token", "pushed_requests", "metrics"} <= {route.name for route in routes}
    for route in routes:

        @examples(EACH * WEIGHTS.get(route.name, 1))
        @given(messages(route))
        def send(message: Message) -> None:
            world.send(message)

        send()
    # Those of the plugins that this server has.
    of_plugins = world.server.application.parts.policies.declared("reasons")
    reasons = {*REMEDIES, *WITHOUT_REMEDY, *of_plugins}
    missing = reasons - world.reached.keys()
    told = {(*operation, code) for operation, codes in world.documented.items() for code in codes}
    REPORT.append(f"{len(reasons - missing)} of {len(reasons)} reasons of refusals were reached")
    REPORT.append(f"  not: {' '.join(sorted(missing))}")
    REPORT.append(
        f"{len(told & world.told.keys())} of {len(told)} errors of the OpenAPI document were answered"
    )
    REPORT.append(
        f"  not: {' '.join(f'{method}:{path}:{status}:{code}' for method, path, status, code in sorted(told - world.told.keys()))}"
    )
    elsewhere = {reason for named in ELSEWHERE.values() for reason in named}
    assert elsewhere <= reasons, "no reason has this name any more"
    assert elsewhere & world.reached.keys() == set()
    if IS_LONG:
        # Chance may miss a rare one.
        assert len(missing - elsewhere) <= 3, missing - elsewhere


def test_every_method_has_an_answer_at_every_path(world: World) -> None:
    """B-01, F-01: what a path does not do is 405, whoever is signed in."""
    for path, method, person in itertools.product(world.routes, METHODS, (None, "ann")):
        headers = () if person is None else (("Cookie", Known(f"cookies of {person}")),)
        answer = world.send(Message(method=method, path=path, headers=headers))
        if method not in ("GET", "POST", "HEAD", "OPTIONS", *world.routes[path].methods):
            assert answer.status_int == 405
            assert method not in answer.headers["Allow"]


@examples(3_000 if IS_LONG else 100)
@given(message=anywhere)
@example(Message(method="GET", path=""))
@example(Message(method="POST", path="/\xff"))
@example(Message(method="POST", path="/oauth/token/\xff"))
@example(Message(method="GET", path="/playground/static/../../app.py"))
@example(Message(method="GET", path="/playground/static/\0"))
@example(Message(method="GET", path="/playground/static/."))
@example(Message(method="GET", path="/playground/static/" + "a" * 3_000))
def test_no_path_breaks_it(world: World, message: Message) -> None:
    """T015: invalid UTF-8, `;`, `//`, NUL and dot segments, at any depth: 404, or the page that is really there."""
    answer = world.send(message)
    if answer.status_int < 400 and message.method != "OPTIONS":
        assert message.path in (*world.routes, "", "//") or message.path.startswith("/playground/static/")
