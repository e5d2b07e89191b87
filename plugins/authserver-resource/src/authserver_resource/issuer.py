"""An authorization server: its metadata, its keys, and its introspection endpoint."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from authserver_resource.fetching import Fetch, FetchFailed, Reply, checked_url, read_json
from authserver_resource.jose import ALGORITHMS, Key, KeySet, Malformed
from authserver_resource.keeping import AFTER_FAILURE, Cache, Kept, WouldWait
from authserver_resource.refusals import Unavailable
from authserver_resource.strict_json import is_number

# Seconds for which metadata and keys are fresh: the server's own value, within these bounds.
FRESH, LEAST_FRESH, MOST_FRESH = 300.0, 60.0, 86_400.0
_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=(\d{1,9})(?:[\s,]|$)", re.IGNORECASE)
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """An authorization server whose tokens are accepted.

    Attributes:
        issuer: its identifier, exactly as it writes it in `iss` (RFC 8414, 2).
        client_id: the client id of this API at the issuer, to introspect tokens; "" if no token is introspected.
        client_secret: the secret of that client, sent by HTTP Basic.
        algorithms: the algorithms that may sign access tokens.
        introspect_jwts: whether JWTs are introspected too, so that a revocation counts at once.
        active_seconds: for how long an answer about an active token is used again; never beyond the token's end.
        inactive_seconds: for how long an answer about an inactive token is used again.
        cache_size: how many answers of each kind are kept.
        jwks_uri: the URL of its key set, for a server without metadata.
        introspection_endpoint: the URL of that endpoint, for a server without metadata.
    """

    issuer: str = field(kw_only=False)
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    algorithms: tuple[str, ...] = ("ES256", "EdDSA", "PS256", "RS256")
    introspect_jwts: bool = False
    active_seconds: float = 30
    inactive_seconds: float = 10
    cache_size: int = 10_000
    jwks_uri: str = ""
    introspection_endpoint: str = ""

    def __post_init__(self) -> None:
        unknown = [name for name in self.algorithms if name not in ALGORITHMS]
        if unknown or not self.algorithms:
            raise ValueError(f"algorithms: must be some of {' '.join(ALGORITHMS)}")
        if bool(self.client_id) != bool(self.client_secret):
            raise ValueError("client_id and client_secret: give both or neither")
        if self.introspect_jwts and not self.client_id:
            raise ValueError("introspect_jwts: needs client_id and client_secret")
        for name, value, most in (
            ("active_seconds", self.active_seconds, 3600),
            ("inactive_seconds", self.inactive_seconds, self.active_seconds),
        ):
            if not 0 <= value <= most:
                raise ValueError(f"{name}: must be 0 to {most}")
        if not 1 <= self.cache_size <= 1_000_000:
            raise ValueError("cache_size: must be 1 to 1000000")


class KnownIssuer:
    """An issuer with its present metadata, keys and answers. Many threads can use it at once.

    Args:
        settings: the issuer.
        fetch: sends requests to it.
        development: whether http to this machine is allowed.

    Raises:
        ValueError: an address is not https.
    """

    def __init__(self, settings: Issuer, fetch: Fetch, *, development: bool) -> None:
        self.settings = settings
        self._fetch = fetch
        self._development = development
        for url in (settings.issuer, settings.jwks_uri, settings.introspection_endpoint):
            if url:
                checked_url(url, development=development)
        if urlsplit(settings.issuer).query:
            raise ValueError(f"{settings.issuer!r}: an issuer has no query (RFC 8414, 2)")
        self._metadata = Kept(f"metadata of {settings.issuer}", self._fetch_metadata)
        self._keys = Kept(f"keys of {settings.issuer}", self._fetch_keys)
        self._active: Cache[Mapping[str, Any]] = Cache(settings.cache_size)
        self._inactive: Cache[bool] = Cache(settings.cache_size)
        self._asked: dict[bytes, Future[Mapping[str, Any] | None]] = {}
        self._asking = threading.Lock()
        self._is_silent = False
        self._trying = threading.Lock()

    def keys(self, *, wait: bool) -> KeySet:
        """Its keys; another object when they were fetched again.

        Raises:
            Unavailable: they cannot be fetched.
            WouldWait: they must be fetched, and `wait` is false.
        """
        return self._keys.get(wait=wait)

    def keys_with(self, kid: str | None, algorithm: str, *, wait: bool) -> tuple[KeySet, Key | None]:
        """Its keys, and the one with this id; fetched again if it is missing, at most once a minute (RFC 7517, 4.5).

        Raises:
            Unavailable: they cannot be fetched.
            WouldWait: they must be fetched, and `wait` is false.
        """
        keys = self._keys.get(wait=wait)
        key = keys.find(kid, algorithm)
        if key is None:
            keys = self._keys.newer(wait=wait)
            key = keys.find(kid, algorithm)
        return keys, key

    def introspect(self, token: str, *, wait: bool) -> Mapping[str, Any] | None:
        """Introspect a token (RFC 7662, 2.2); None if it is not active.

        Only one request about a token is sent at a time, and all callers that wait get its answer.

        Raises:
            Unavailable: the issuer does not answer.
            WouldWait: it must be asked, and `wait` is false.
        """
        # The token itself is not kept, so that the memory of this process does not contain it.
        digest = hashlib.sha256(token.encode()).digest()
        known = self._active.get(digest)
        if known is not None:
            return known
        if self._inactive.get(digest):
            return None
        if not wait:
            raise WouldWait
        with self._asking:
            asked = self._asked.get(digest)
            mine = asked is None
            if asked is None:
                asked = self._asked[digest] = Future()
        if mine:
            try:
                asked.set_result(self._ask_if_it_answers(token, digest))
            except BaseException as problem:
                asked.set_exception(problem)
            finally:
                with self._asking:
                    del self._asked[digest]
        return asked.result()

    def _ask_if_it_answers(self, token: str, digest: bytes) -> Mapping[str, Any] | None:
        """Ask the issuer; while it does not answer, only one thread tries, and no other waits."""
        if not self._is_silent:
            return self._ask(token, digest)
        if not self._trying.acquire(blocking=False):
            raise Unavailable("The authorization server does not answer.", retry_after=int(AFTER_FAILURE))
        try:
            return self._ask(token, digest)
        finally:
            self._trying.release()

    def _ask(self, token: str, digest: bytes) -> Mapping[str, Any] | None:
        settings = self.settings
        url = settings.introspection_endpoint or self._endpoint("introspection_endpoint")
        halves = ":".join(map(quote_plus, (settings.client_id, settings.client_secret)))
        headers = {
            "Authorization": f"Basic {base64.b64encode(halves.encode()).decode()}",
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        form = urlencode({"token": token, "token_type_hint": "access_token"}).encode()
        retry_after = int(AFTER_FAILURE)
        try:
            reply = self._post(url, headers, form)
            if reply.status in (429, 503):
                text = reply.headers.get("retry-after", "")
                if text.isascii() and text.isdigit():
                    retry_after = min(int(text[:6]), 3600)
            answer = read_json(reply)
            if type(answer.get("active")) is not bool:
                raise FetchFailed("the answer does not say whether the token is active")
        except FetchFailed as problem:
            log.warning("introspection at %s: %s", settings.issuer, problem)
            raise Unavailable("The authorization server cannot be asked.", retry_after=retry_after) from None
        if not answer["active"]:
            self._inactive.put(digest, True, settings.inactive_seconds)
            return None
        seconds = settings.active_seconds
        if is_number(ends := answer.get("exp")):
            seconds = min(seconds, ends - time.time())
        self._active.put(digest, answer, seconds)
        return answer

    def _post(self, url: str, headers: Mapping[str, str], form: bytes) -> Reply:
        try:
            reply = self._fetch("POST", url, headers, form)
        except FetchFailed:
            self._is_silent = True
            raise
        self._is_silent = False
        return reply

    def _endpoint(self, name: str) -> str:
        url = self._metadata.get(wait=True).get(name)
        try:
            return checked_url(url if isinstance(url, str) else "", development=self._development)
        except ValueError:
            log.warning("metadata of %s: %s is missing or not https", self.settings.issuer, name)
            raise Unavailable(
                "The authorization server cannot be asked.", retry_after=int(AFTER_FAILURE)
            ) from None

    def _fetch_metadata(self) -> tuple[Mapping[str, Any], float]:
        """The metadata (RFC 8414, 3), or else those of OpenID Connect Discovery."""
        issuer = self.settings.issuer
        parts = urlsplit(issuer)
        path = parts.path.removesuffix("/")
        reply = self._get(f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}")
        if reply.status == 404:
            reply = self._get(f"{issuer.removesuffix('/')}/.well-known/openid-configuration")
        metadata = read_json(reply)
        if metadata.get("issuer") != issuer:
            raise FetchFailed("its issuer is not the one that was asked for (RFC 8414, 3.3)")
        return metadata, fresh_seconds(reply)

    def _fetch_keys(self) -> tuple[KeySet, float]:
        try:
            url = self.settings.jwks_uri or self._endpoint("jwks_uri")
        except Unavailable as problem:
            raise FetchFailed(problem.description) from None
        reply = self._get(url)
        try:
            return KeySet(read_json(reply), self.settings.algorithms), fresh_seconds(reply)
        except Malformed as problem:
            raise FetchFailed(str(problem)) from None

    def _get(self, url: str) -> Reply:
        return self._fetch("GET", url, {"Accept": "application/json, application/jwk-set+json"}, None)


def fresh_seconds(reply: Reply) -> float:
    """For how long a reply is fresh (RFC 9111, 5.2.2.1), within bounds."""
    found = _MAX_AGE.search(reply.headers.get("cache-control", ""))
    return min(max(float(found[1]) if found else FRESH, LEAST_FRESH), MOST_FRESH)
