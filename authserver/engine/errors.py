"""Refusals: exceptions that end a request, with a text for the client and a reason for the operator.

`description` is short fixed text for the client (RFC 6749, 5.2: %x20-21, %x23-5B, %x5D-7E);
`reason` is a stable identifier for the log and the event table. All writes of a refused request are rolled back. A
consequence that must remain (the revocation of a replayed grant, a counted failure) is a member of the refusal. It is
carried out, with the event of the refusal, in a short transaction after the rollback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from authserver.engine.records import NOTHING, Kept, Token

# The error codes for a client that asked for no page, if a page would be needed or nobody is signed in (OIDC Core,
# 3.1.2.6).
SILENT_CODES = frozenset(
    {"account_selection_required", "consent_required", "interaction_required", "login_required"}
)
# The response mode of the core: the response is in the query of the redirect URI (OAuth 2.1, 4.1.2).
QUERY = "query"


class Refusal(Exception):
    """Base of all refusals; never raised itself.

    Args:
        description: for the client.
        reason: for operators; defaults to the error code.
        revoke_grant: the id of a grant that is revoked although the request is refused.
        failed_token: a code with which a wrong proof was presented; the failure is counted.

    Attributes:
        facts: what was refused, by name, for operators; only names that this server knows, and nothing secret.
        kept_change: a small record as it was read, and as it is stored although the request is refused, such as one that
            counts how often it was asked for.
        leaves_event: False for a refusal that is normal and frequent, such as the answer to a client that polls too early.
    """

    leaves_event: bool = True

    def __init__(
        self,
        description: str,
        *,
        reason: str = "",
        revoke_grant: str | None = None,
        failed_token: Token | None = None,
    ) -> None:
        self.facts: Mapping[str, str] = NOTHING
        self.kept_change: tuple[Kept, Kept] | None = None
        super().__init__(description)
        self.description = description
        self.reason = reason
        self.revoke_grant = revoke_grant
        self.failed_token = failed_token


class SignInRefused(Refusal):
    """The user name and password were not accepted; the page says no more than that (T100)."""


class PasswordRefused(Refusal):
    """A password was not changed; `field` is the one to correct (`current_password`, `new_password`, `repeated`)."""

    def __init__(self, description: str, *, reason: str, field: str) -> None:
        super().__init__(description, reason=reason)
        self.field = field


class PasswordLinkRefused(Refusal):
    """A link to set a password does not work, or does not any more; the page says no more than that."""

    def __init__(self, *, reason: str) -> None:
        super().__init__("This link does not work any more.", reason=reason)


class OAuthError(Refusal):
    """An error with a code of the protocol. How it is delivered depends on the endpoint.

    Attributes:
        members: further members of the JSON answer, which tell the client how to do it right.
    """

    code: str
    status: ClassVar[int] = 400
    members: Mapping[str, str | int] = NOTHING

    def __init__(
        self,
        description: str,
        *,
        reason: str = "",
        revoke_grant: str | None = None,
        failed_token: Token | None = None,
    ) -> None:
        super().__init__(
            description,
            reason=reason or self.code,
            revoke_grant=revoke_grant,
            failed_token=failed_token,
        )


class InvalidRequest(OAuthError):
    """A parameter is missing, repeated, malformed, or contradicts another."""

    code = "invalid_request"


class InvalidClient(OAuthError):
    """Client authentication failed.

    `scheme` is the scheme of the Authorization header as it was sent, for the challenge (RFC 9110, 11.6.1).
    """

    code = "invalid_client"
    status = 401

    def __init__(self, description: str, *, reason: str = "", scheme: str = "Basic") -> None:
        super().__init__(description, reason=reason)
        self.scheme = scheme


class InvalidGrant(OAuthError):
    """The code or refresh token is unknown, used, expired, revoked or another client's."""

    code = "invalid_grant"


class UnauthorizedClient(OAuthError):
    """This client may not use this grant or response type."""

    code = "unauthorized_client"


class UnsupportedGrantType(OAuthError):
    """No such grant type here."""

    code = "unsupported_grant_type"


class UnsupportedResponseType(OAuthError):
    """No such response type here."""

    code = "unsupported_response_type"


class UnsupportedTokenType(OAuthError):
    """A credential of this kind cannot be revoked (RFC 7009, 2.2.1)."""

    code = "unsupported_token_type"


class InvalidScope(OAuthError):
    """A scope is unknown, malformed, or more than is allowed."""

    code = "invalid_scope"


class InvalidTarget(OAuthError):
    """A resource is malformed, unknown or not allowed (RFC 8707, 2)."""

    code = "invalid_target"


class RequestNotSupported(OAuthError):
    """Nothing here reads the request object of a `request` parameter (RFC 9101, 7)."""

    code = "request_not_supported"


class RequestUriNotSupported(OAuthError):
    """Nothing here reads a `request_uri` parameter (RFC 9101, 7)."""

    code = "request_uri_not_supported"


class AccessDenied(OAuthError):
    """The user or a policy refused."""

    code = "access_denied"
    status = 403


class AuthenticationRefused(AccessDenied):
    """A policy refuses the request because of the user's sign-in or its lack (hook `authentication_decision`).

    Args:
        code: the policy's own, such as `login_required` (OIDC Core, 3.1.2.6); None for `access_denied`.
        silent: whether the request may show no page.
    """

    def __init__(self, description: str, *, reason: str, code: str | None, silent: bool = False) -> None:
        super().__init__(description, reason=reason)
        self.code = code or self.code
        self.silent = silent or self.code in SILENT_CODES


class ServerError(OAuthError):
    """Something in this server failed, such as a policy plugin: nothing is issued (R-14)."""

    code = "server_error"
    status = 500


class TemporarilyUnavailable(OAuthError):
    """The server cannot answer now; trying again later may help.

    `retry_after` is in seconds; 0 if the time is not known.
    """

    code = "temporarily_unavailable"
    status = 503

    def __init__(self, description: str, *, reason: str = "", retry_after: int = 0) -> None:
        super().__init__(description, reason=reason)
        self.retry_after = retry_after


class TooBusy(TemporarilyUnavailable):
    """Too many requests do this at the same time: try again. It leaves no event, because many are refused at once."""

    def __init__(self) -> None:
        super().__init__("The server is busy. Try again in a moment.", reason="too-busy")
        self.leaves_event = False


class TooManyRequests(OAuthError):
    """The caller did something too often (RFC 6585, 4); OAuth has no error code for this.

    `retry_after` is in seconds. Only the first of many `leaves_event`, so that a flood is not stored.
    """

    code = "temporarily_unavailable"
    status = 429

    def __init__(self, description: str, *, reason: str, retry_after: int, leaves_event: bool) -> None:
        super().__init__(description, reason=reason)
        self.retry_after = retry_after
        self.leaves_event = leaves_event


class InvalidRedirectUri(OAuthError):
    """A redirect URI cannot be registered (RFC 7591, 3.2.2)."""

    code = "invalid_redirect_uri"


class InvalidClientMetadata(OAuthError):
    """A member of the client metadata cannot be registered (RFC 7591, 3.2.2)."""

    code = "invalid_client_metadata"


class InvalidToken(OAuthError):
    """A bearer token is missing, malformed or not accepted (RFC 6750, 3).

    `sent` says whether one was sent at all: only then the challenge carries an error.
    """

    code = "invalid_token"
    status = 401

    def __init__(self, description: str, *, reason: str = "", sent: bool = True) -> None:
        super().__init__(description, reason=reason)
        self.sent = sent


class InsufficientScope(OAuthError):
    """A bearer token is valid, but lacks the required scope (RFC 6750, 3.1)."""

    code = "insufficient_scope"
    status = 403

    def __init__(self, description: str, *, scope: str, reason: str = "") -> None:
        super().__init__(description, reason=reason)
        self.scope = scope


class PageError(Refusal):
    """An authorization error that must not be redirected: the user sees it here (OAuth 2.1, 4.1.2.1).

    Args:
        advises: whether the description tells the user what to do; otherwise it tells developers what is wrong.
    """

    status = 400

    def __init__(self, cause: OAuthError, *, advises: bool = False) -> None:
        super().__init__(cause.description, reason=cause.reason, revoke_grant=cause.revoke_grant)
        self.facts = cause.facts
        # No client authenticates here, so an unknown client is a mistake in the request (OAuth 2.1, 4.1.2.1).
        self.code = InvalidRequest.code if isinstance(cause, InvalidClient) else cause.code
        self.advises = advises


class RedirectError(Refusal):
    """An authorization error for the client, at a redirect URI that has been accepted.

    `ask_first` is set when the client registered that URI itself: the user then sees where it leads and
    follows a link (OAuth 2.1, 7.13.2). `mode` is the response mode, in which it is sent.
    """

    def __init__(
        self,
        cause: OAuthError,
        *,
        redirect_uri: str,
        state: str | None,
        ask_first: bool = False,
        mode: str = QUERY,
    ) -> None:
        super().__init__(cause.description, reason=cause.reason, revoke_grant=cause.revoke_grant)
        self.code = cause.code
        self.redirect_uri = redirect_uri
        self.state = state
        self.ask_first = ask_first
        self.mode = mode
