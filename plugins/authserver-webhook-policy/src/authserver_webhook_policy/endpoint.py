"""Asking an endpoint over HTTP: one deadline for everything, a few attempts.

The server's `Service` has the connections, the limits and the deadline of each attempt.
"""

from __future__ import annotations

import random
import secrets
import time

from authserver.api import FetchFailed, FetchProblem, Service
from authserver_webhook_policy.signature import sign

MAXIMUM_ANSWER = 65536
# The endpoint, or a proxy in front of it, says that another attempt may help.
PASSING = (502, 503, 504)
# Seconds before the first new attempt, at most; doubled for each one after it.
BACKOFF = 0.1
# As many as calls of plugins can run at once in the server.
CONNECTIONS = 32


class EndpointFailed(Exception):
    """There is no answer; the message says why, and repeats nothing of the request or answer."""


class Endpoint:
    """An HTTP endpoint that is asked signed questions. Safe for many threads.

    Args:
        url: https, or http to this machine.
        key: the requests are signed with it.
        timeout: seconds for one question with all its attempts.
        retries: how many more attempts after a connection that failed, or 502, 503 and 504.
        ca_file: the certificates to trust instead of the system's; "" for the system's.

    Raises:
        ValueError: url or ca_file cannot be used; with the setting named.
    """

    def __init__(self, url: str, key: bytes, *, timeout: float, retries: int, ca_file: str) -> None:
        self._key = key
        self._timeout = timeout
        self._retries = retries
        self._service = Service(url, ca_file=ca_file, connections=CONNECTIONS)
        self.name = self._service.name

    def ask(self, body: bytes) -> bytes:
        """Send this body and return the body of the answer. Raises EndpointFailed."""
        deadline = time.monotonic() + self._timeout
        for attempt in range(self._retries + 1):
            answer, problem = self._attempt(body, deadline)
            if answer is not None:
                return answer
            # A random pause, so that requests that failed together are not repeated together.
            pause = random.uniform(0.1, 1) * BACKOFF * 2**attempt  # noqa: S311 - no secret
            if attempt == self._retries or time.monotonic() + pause >= deadline:
                break
            time.sleep(pause)
        raise EndpointFailed(f"{self.name}: {problem}, {attempt + 1} attempts")

    def close(self) -> None:
        """Close the connections that are kept."""
        self._service.close()

    def _attempt(self, body: bytes, deadline: float) -> tuple[bytes | None, str]:
        """The answer; or None and a problem after which another attempt may help. Raises EndpointFailed for others."""
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": "authserver-webhook-policy",
            # A new id and time: an endpoint may refuse every request that it has seen before.
            **sign(self._key, "msg_" + secrets.token_hex(16), body, time.time()),
        }
        try:
            answered = self._service.post(
                body, headers, deadline=deadline, maximum=MAXIMUM_ANSWER, read=(200,)
            )
        except FetchFailed as error:
            if error.problem in (FetchProblem.UNREACHABLE, FetchProblem.NAME_UNKNOWN):
                return None, error.detail
            if error.problem is FetchProblem.TOO_SLOW:
                raise EndpointFailed(f"{self.name}: no whole answer within {self._timeout} s") from None
            raise EndpointFailed(f"{self.name}: {error.detail}") from None
        if answered.status in PASSING:
            return None, f"status {answered.status}"
        if answered.status != 200:
            raise EndpointFailed(f"{self.name}: status {answered.status}")
        if answered.media_type != "application/json":
            raise EndpointFailed(f"{self.name}: the answer is not application/json")
        return answered.body, ""
