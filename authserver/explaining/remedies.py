"""What to do about a refusal, by its reason: the setting or command that would change it, if any does.

What to do if no plugin of a hook answered is declared with the hook (`hookspecs`).
"""

from __future__ import annotations

from collections.abc import Mapping

from authserver.engine.records import NOTHING

_ALLOW_PRIVATE_USE = (
    "a private-use scheme without a period has no owner; allow the complete URI: list mcp_clients in "
    "authserver.plugins for the URIs of MCP programs, or redirect_private_use and name the URI in "
    "authserver.plugin.redirect_private_use.uris"
)
_OFFER_GRANT_TYPE = "list the grant type in authserver.grant_types, or the plugin that adds it"
_ASK_AGAIN = "the client must send the person through authorization again"

REMEDIES: Mapping[str, str] = {
    # Clients and people
    "client-unknown": "register the client: `authserver client add`",
    "client-disabled": "the client was disabled for good; register another: `authserver client add`",
    "user-disabled": "the person was disabled for good; add another: `authserver user add`",
    "method-not-registered": (
        "the client must use the method it is registered for (`authserver client show`), or be registered "
        "for this one: `authserver client add --auth-method`"
    ),
    "secret-wrong": "the client must send its secret; a lost one is replaced: `authserver client rotate-secret`",
    "secret-malformed": (
        "the client must send its secret whole and as it is, with prefix and checksum; a lost one is replaced: "
        "`authserver client rotate-secret`"
    ),
    "username-unusable": "the name cannot be a user name; `authserver user add NAME` says why",
    "password-wrong": "the person must type the right password",
    "current-password-wrong": "an operator can set another one: `authserver user password`",
    "no-password-here": (
        "an operator can set one: `authserver user password`; a plugin such as login_password asks for it"
    ),
    "public-caller": "only a client with a credential may introspect: `authserver client add --auth-method`",
    "too-many-unknown-tokens": (
        "the clients of this API send it unknown tokens, or the caller scans for valid ones; if that is expected, raise "
        "authserver.unknown_tokens_per_minute"
    ),
    # Redirect URIs
    "redirect-uri-malformed": "no setting: such a URI is never acceptable",
    "private-use-not-allowed": _ALLOW_PRIVATE_USE,
    "redirect-uri-missing": "the request must name one of the client's redirect URIs: `authserver client show`",
    "redirect-uri-withdrawn": "a policy that accepted the URI when the code was issued does not accept it now",
    "invalid_redirect_uri": "no setting: the description names what is wrong with the URI",
    # Scopes and resources
    "scope-not-registered": "register the client for the scope: `authserver client add --scope`",
    "nothing-left": "register the client for the scope, and list the scope in authserver.scopes",
    "core-floor": "no setting: a scope must be requested, registered for the client and listed in authserver.scopes",
    "resource-missing": (
        "the client must send the parameter resource, or authserver.plugin.resources_listed.default must name the "
        "resource that counts without it"
    ),
    "resource-not-registered": (
        "register the client for the resource, or for none, which means every listed one; a request that names none "
        "is for authserver.plugin.resources_listed.default"
    ),
    "scopes-of-resource": "list the scope with the resource",
    # Grant types
    "grant-type-not-registered": "register the client for the grant type: `authserver client add --grant-type`",
    "unauthorized_client": (
        "register the client for authorization_code: `authserver client add --grant-type authorization_code`"
    ),
    "public-client": (
        "only a client with a credential may act on its own behalf: `authserver client add --auth-method`"
    ),
    "unsupported_grant_type": _OFFER_GRANT_TYPE,
    "unsupported_response_type": "only `code` is offered, while authorization_code is in authserver.grant_types",
    # Time
    "code-expired": f"authserver.code_lifetime is how long a code lives; {_ASK_AGAIN}",
    "grant-expired": f"authserver.grant_lifetime is how long a grant lasts; {_ASK_AGAIN}",
    "refresh-token-idle": (
        f"authserver.refresh_token_idle_lifetime is how long a refresh token may be unused; {_ASK_AGAIN}"
    ),
    "refresh-token-reused": (
        "authserver.refresh_token_retry_window is how late a retry may come; anything later means a copied "
        f"token, so the grant is revoked; {_ASK_AGAIN}"
    ),
    "request-expired": (
        "authserver.request_lifetime is how long a person may take; what was asked before `authserver db restored` "
        "has expired, too"
    ),
    # Pages
    "access_denied": "nothing: the person or a policy refused",
    "request-unsealable": (
        "the request began in another browser, or the key that sealed it is not in authserver.secret_keys any more"
    ),
    "two-sessions": "another site below the same domain sets a cookie of that name: delete the cookies of this site",
    "form-token": "the page is of an earlier session, or the browser keeps no cookies: open it again",
    # Plugins beyond the core
    "two-bindings": "two plugins bind the same token to two keys: take one out of authserver.plugins",
    # Registration
    "initial-access-token-required": (
        "the client must send one of authserver.plugin.registration_token.tokens as a bearer token"
    ),
    "invalid_token": "the client must send a valid bearer token",
    "grant-type-not-open": "list one of the grant types in the plugin's grant_types",
    "scope-not-open": "list the scopes that such clients may have in the plugin's scopes",
    "no-grant-type": _OFFER_GRANT_TYPE,
    "no-scope": "name a scope: `authserver client add --scope`; the plugin's scopes must be listed in authserver.scopes",
    "no-redirect-uri": (
        f"the client must send a URI that the redirect URI policies accept (`authserver plugins`); {_ALLOW_PRIVATE_USE}"
    ),
    "not-everything-offered": "authserver.strict_registration refuses what would otherwise be left out",
    "invalid_client_metadata": "no setting unless the description names a scope, grant type or method: offer that",
    "request_uri_not_supported": (
        "list a plugin in authserver.plugins that reads such requests (expand_authorization_request)"
    ),
    # Plugins and the server itself
    "plugin-raised": "fix the plugin: the log has the traceback",
    "plugin-too-slow": "authserver.policy_time_limit is how long a plugin may take",
    "answer-too-large": "fix the plugin: an answer has a few names in it, and no documents",
    "wrong-type": "fix the plugin: it must return allow(…), narrow(…), deny(…) or None",
    "wrong-verdict": "fix the plugin: it must make its answers with allow(…), narrow(…) and deny(…)",
    "bad-reason": "fix the plugin: a reason is lower-case words joined by hyphens",
    "wrong-value": "fix the plugin: `authserver plugins` and the hook's documentation say what it may answer",
    "server_error": "see the log under the error id",
    "unexpected-error": "see the log under the error id: it has the traceback",
    "storage-unavailable": "check the database, or give it more time; authserver.database_url names it",
    "temporarily_unavailable": "check the database, or give it more time; authserver.database_url names it",
}

# Mistakes of the sender of the request, which no setting changes.
WITHOUT_REMEDY = frozenset(
    {
        "authorization-malformed",
        "authorization-scheme",
        "client-id-differs",
        "client-id-missing",
        "client-refused",
        "code-burnt",
        "code-malformed",
        "code-of-another-client",
        "code-replayed",
        "code-unknown",
        "content-type",
        "field-repeated",
        "grant-ended",
        "grant-revoked",
        "grant-type-missing",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "invalid_target",
        "key-differs",
        "method-not-allowed",
        "new-password-differs",
        "new-password-length",
        "new-password-same",
        "nobody-answered",
        "password-changed",
        "password-too-long",
        "pkce-challenge",
        "pkce-method",
        "pkce-missing",
        "redirect-uri-differs",
        "refresh-token-malformed",
        "refresh-token-of-another-client",
        "refresh-token-unknown",
        "request-answered",
        "request-entity-too-large",
        "request-too-long",
        "request_not_supported",
        "resource-not-granted",
        "response-mode",
        "response-type-missing",
        "scope-not-granted",
        "session-ended",
        "state-malformed",
        "token-of-another-client",
        "too-many-resources",
        "two-methods",
        "unsupported_token_type",
        "verifier-malformed",
        "verifier-missing",
        "verifier-wrong",
    }
)


def remedy_of(reason: str, declared: Mapping[str, str] = NOTHING) -> str:
    """What would change a refusal for this reason; "" for the reasons of a plugin that declares no remedy.

    Args:
        declared: the remedies that plugins declare in a mapping `reasons`; "" for a mistake of the client or user.
    """
    remedy = REMEDIES.get(reason, declared.get(reason))
    if reason in WITHOUT_REMEDY or remedy == "":
        return "no setting: the sender must send another request"
    return remedy or ""
