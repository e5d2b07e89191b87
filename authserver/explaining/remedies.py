"""The remedy for each reason of a refusal: the setting or command that would change it, if there is one.

The remedy for a hook that no plugin answers is declared with the hook (`hookspecs`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from authserver.engine.clients.authentication import PRESENTATION
from authserver.engine.records import NOTHING

# The placeholders that a remedy may have in braces, each with the word for people that replaces an unknown value.
PLACES: Mapping[str, str] = {
    "client_id": "CLIENT_ID",
    "redirect_uri": "URI",
    "grant_type": "TYPE",
    "auth_method": "METHOD",
    "registered_method": "another method",
    "add_scopes": "--add-scope SCOPE",
}
_PLACE = re.compile("{(" + "|".join(PLACES) + ")}")
EDIT = "authserver client edit"
_ALLOW_PRIVATE_USE = (
    "a private-use scheme without a period belongs to nobody, so the complete URI must be allowed: list mcp_clients in "
    "authserver.plugins for the URIs of MCP programs, or list redirect_private_use there and name the URI in "
    "authserver.plugin.redirect_private_use.uris"
)
_OFFER_GRANT_TYPE = (
    "list the grant type in authserver.grant_types, or the plugin that adds it in authserver.plugins"
)
_ASK_AGAIN = "the client must send the person through authorization again"
_LOST_SECRET = "a lost one is replaced: `authserver client rotate-secret {client_id}`"
_ANOTHER_TOKEN = (
    "`authserver initial-token list` shows all; make another for the client: `authserver initial-token add`"
)
_ANOTHER_REQUEST = "no setting changes this: the sender must send another request"

_ANOTHER_LINK = "`authserver user reset-password NAME` makes another"

REMEDIES: Mapping[str, str] = {
    # Clients and people
    "link-malformed": f"the link is not complete, or another server made it: {_ANOTHER_LINK}",
    "link-unknown": f"this server made no such link, or has deleted it: {_ANOTHER_LINK}",
    "link-used": f"the link was used before, and works only once: {_ANOTHER_LINK}",
    "link-expired": f"the link has expired: {_ANOTHER_LINK}; authserver.password_link_lifetime says for how long it works",
    "link-password-changed": f"the password was set in another way after the link was made: {_ANOTHER_LINK}",
    "link-groups-changed": f"the person was added to a group after the link was made: {_ANOTHER_LINK}",
    "link-before-restore": f"the link was made before the database was restored: {_ANOTHER_LINK}",
    "no-mail-address": (
        "the person has no mail address: put it into the attribute that authserver.mail_attribute names, by `authserver user "
        "edit NAME --attribute email=ADDRESS`"
    ),
    "client-unknown": (
        "no client has this id: `authserver client list` shows those there are, and `authserver client add` registers one"
    ),
    "client-disabled": (
        "the client was disabled for good: `authserver client add` registers another, with an id of its own"
    ),
    "client-edited": (
        "an operator has changed this client, so it cannot change itself: change it by `authserver client edit {client_id}`"
    ),
    "user-disabled": "the person was disabled: `authserver user enable NAME` lets them sign in again",
    "method-not-registered": (
        "the client must use {registered_method}, for which it is registered; or register it for the method that it used: "
        "`authserver client edit {client_id} --auth-method {auth_method}`"
    ),
    # Anybody can send a client_id alone: that must not lead to a command that makes the client public.
    "credential-missing": (
        f"the client must authenticate by {{registered_method}}, for which it is registered; {_LOST_SECRET}"
    ),
    "client-id-missing": (
        "the request must name its client: by the header `Authorization: Basic`, or by the parameter client_id"
    ),
    "authorization-scheme": "the client must authenticate by the scheme Basic, or by parameters of the form",
    "authorization-malformed": (
        "the client must send `Authorization: Basic` with the base64 of client_id:secret, each of them form-encoded first "
        "(RFC 6749, 2.3.1)"
    ),
    "client-assertion-malformed": (
        "client_assertion must be one compact JWS of at most 8,192 characters, signed by the client (RFC 7523, 2.2)"
    ),
    "secret-wrong": f"the client must send its secret; {_LOST_SECRET}",
    "secret-malformed": (
        f"the client must send its complete secret unchanged, with prefix and checksum; {_LOST_SECRET}"
    ),
    "username-unusable": "the name cannot be a user name; `authserver user add NAME` says why",
    "password-wrong": "the person must type the right password",
    "current-password-wrong": "an operator can set another one: `authserver user password`",
    "no-password-here": (
        "an operator can set one: `authserver user password`; a plugin such as login_password asks for it"
    ),
    "public-caller": (
        "only a client with a credential of its own may introspect; give it one: "
        "`authserver client edit {client_id} --auth-method client_secret_basic`"
    ),
    # Web origins
    "origin-malformed": "no setting changes this: write the origin as the browser sends it in the header Origin",
    # Redirect URIs
    "redirect-uri-malformed": "no setting changes this: such a URI is never acceptable",
    "private-use-not-allowed": _ALLOW_PRIVATE_USE,
    "redirect-uri-missing": (
        "the request must name one of the client's redirect URIs, which are shown by `authserver client show {client_id}`"
    ),
    "redirect-uri-withdrawn": (
        "the redirect URI was accepted when the code was issued, and is not accepted now: see the redirect_uri_decision above"
    ),
    "invalid_redirect_uri": "no setting changes this: the description says what is wrong with the URI",
    # Scopes and resources
    "scope-not-registered": "register the client for the scope: `authserver client edit {client_id} {add_scopes}`",
    "nothing-left": (
        "of the scopes that policies allowed, none was requested, registered for the client (`authserver client show "
        "{client_id}`) and listed in authserver.scopes"
    ),
    "core-floor": (
        "no setting changes this: a scope must be requested, registered for the client and listed in authserver.scopes"
    ),
    "resource-missing": (
        "the client must send the parameter resource, or one must be the default: "
        "authserver.plugin.resources_listed.default, or `authserver resource edit URI --default`"
    ),
    "resource-not-registered": (
        "the client may ask only for some of the resources (`authserver client show {client_id}`): it must name one of "
        "these; a request that names none is for authserver.plugin.resources_listed.default"
    ),
    "scopes-of-resource": (
        "list the scope with the resource, in authserver.plugin.resources_listed.resources or with `authserver resource edit`"
    ),
    # Grant types
    "grant-type-not-registered": (
        "register the client for the grant type: `authserver client edit {client_id} --add-grant-type {grant_type}`"
    ),
    "unauthorized_client": (
        "register the client for this grant type: "
        "`authserver client edit {client_id} --add-grant-type authorization_code`"
    ),
    "public-client": (
        "only a client with a credential of its own may act on its own behalf; give it one: "
        "`authserver client edit {client_id} --auth-method client_secret_basic`"
    ),
    "unsupported_grant_type": _OFFER_GRANT_TYPE,
    "unsupported_response_type": "only `code` is offered, while authorization_code is in authserver.grant_types",
    # Time
    "code-replayed": (
        f"a code works once, and this one was sent twice, so its tokens were revoked; {_ASK_AGAIN}, and must not send a code "
        "again"
    ),
    "code-burnt": f"too many wrong proofs were sent for this code, so it does not work any more; {_ASK_AGAIN}",
    "code-malformed": "the text is not a code of this server: the client must send the complete code, as it got it",
    "refresh-token-malformed": (
        "the text is not a refresh token of this server: the client must send the complete token, as it got it"
    ),
    "token-of-another-client": "a client can revoke only what was issued to it",
    "code-unknown": f"the code was never issued here, or it expired long ago; {_ASK_AGAIN}",
    "code-of-another-client": "the client that asked for the code must redeem it, by the same client_id",
    "redirect-uri-differs": (
        "the token request must repeat the redirect_uri of the authorization request character by character, or leave it out"
    ),
    "verifier-wrong": "the client must send the code_verifier whose digest was the code_challenge of this code (RFC 7636)",
    "verifier-without-challenge": (
        "the client sent a code_verifier, but its authorization request had no code_challenge: somebody may have removed it"
    ),
    "grant-ended": f"the person, an operator or a replay ended it, or it expired; {_ASK_AGAIN}",
    "grant-revoked": f"the person, the client, an operator or a replay ended it; {_ASK_AGAIN}",
    "parent-grant-revoked": (
        "the grant from which this token was derived was revoked, so this token ended too: the client needs a new token"
    ),
    "parent-grant-expired": "the grant from which this token was derived has expired: the client needs a new token",
    "parent-grant-unknown": "the grant from which this token was derived is not stored any more: the client needs a new token",
    # Assertions of trusted issuers
    "assertion-malformed": "the assertion must be one compact JWS of at most 8,192 characters (RFC 7523, 2.1)",
    "assertion-header": "the header of the assertion must have alg, kid and typ only: no key, no address, no extension",
    "assertion-type": "typ in the header of the assertion must be that of the profile of its issuer: `authserver issuer show`",
    "assertion-issuer-not-trusted": (
        "iss of the assertion must be exactly the name of a trusted issuer: `authserver issuer list` shows them, and "
        "`authserver issuer add` adds one"
    ),
    "assertion-audience": "aud of the assertion must be the issuer of this server alone, and no address of an endpoint",
    "assertion-subject-missing": "the assertion must have a sub",
    "assertion-times-malformed": (
        "exp, iat and nbf of the assertion must be whole numbers of seconds since 1970, and exp is required"
    ),
    "assertion-expired": "the client must get a new assertion from its issuer; or the clock of the issuer is slow (`--skew`)",
    "assertion-not-yet-valid": (
        "iat or nbf of the assertion is in the future: the clock of the issuer is fast; `authserver issuer edit ISSUER --skew`"
    ),
    "assertion-lives-too-long": "`authserver issuer edit ISSUER --lifetime` says how far ahead exp may be",
    "assertion-key-unknown": (
        "kid of the assertion must be that of a key of its issuer: `authserver issuer test ISSUER` fetches and shows them"
    ),
    "assertion-algorithm": "alg of the assertion must be that of its key, and one of its issuer: `authserver issuer show ISSUER`",
    "assertion-signature": "the assertion was not signed with the key of its issuer: `authserver issuer test ISSUER`",
    "assertion-jti-missing": "the assertion must have a jti of its own, because it is accepted once",
    "assertion-replayed": "an assertion is accepted once: the client must get another one from its issuer",
    "issuer-disabled": "`authserver issuer enable ISSUER` accepts it again; the access that it gave before has ended",
    "issuer-profile-unknown": "list the plugin of the profile in authserver.plugins: `authserver issuer show ISSUER`",
    "issuer-client-not-allowed": "`authserver issuer edit ISSUER --client` names all clients that may present its assertions",
    "issuer-client-unknown": (
        "a rule of the issuer names a client that does not exist: `authserver issuer show ISSUER` shows which"
    ),
    "issuer-resource-not-allowed": "`authserver issuer edit ISSUER --resource` names all resources that its tokens may be for",
    "issuer-scope-not-allowed": "`authserver issuer edit ISSUER --scope` names all scopes that its tokens may have",
    "issuer-keys-refused": "the keys of the issuer cannot be used: `authserver issuer test ISSUER` says why",
    "issuer-keys-unreachable": (
        "the keys of the issuer could not be fetched: the event says why, and `authserver issuer test ISSUER` tries again"
    ),
    "user-unknown": (
        "the issuer names somebody who is not a user here: add the user (`authserver user add`), or let the entry of the issuer "
        "say which user belongs to which subject (`authserver issuer edit`)"
    ),
    "parent-client-disabled": (
        "a client from whose token this access was derived is disabled (`authserver client list` shows which), or it is kept "
        "elsewhere and its plugin refuses it"
    ),
    "resource-beyond-parent": "no setting changes this: the client may ask only for resources of the token that it shows",
    "scope-beyond-parent": (
        "the client asks for no scope that its token, the client and the resource have in common: `authserver client show`"
    ),
    "client-made-public": (
        "the document of the client does not name a key any more, so what was given to the holder of the key ended; "
        f"{_ASK_AGAIN}"
    ),
    "scope-not-granted": f"the client must name scopes of this grant only; for others {_ASK_AGAIN}",
    "resource-not-granted": f"the client must name resources of this grant only; for others {_ASK_AGAIN}",
    "resource-gone": (
        f"the resource is not registered any more, or was removed since the person agreed (`authserver resource list`); {_ASK_AGAIN}"
    ),
    "refresh-token-unknown": f"the token was never issued here, or it was deleted long after its end; {_ASK_AGAIN}",
    "refresh-token-of-another-client": "the client that got the refresh token must use it, by the same client_id",
    "code-expired": f"authserver.code_lifetime says how long a code is valid; {_ASK_AGAIN}",
    "grant-expired": f"authserver.grant_lifetime says how long a grant lasts; {_ASK_AGAIN}",
    "refresh-token-idle": (
        f"authserver.refresh_token_idle_lifetime says how long a refresh token may be unused; {_ASK_AGAIN}"
    ),
    "refresh-token-reused": (
        "authserver.refresh_token_retry_window says how late a retry may come; a later one means a copied "
        f"token, so the grant is revoked; {_ASK_AGAIN}"
    ),
    "request-expired": (
        "authserver.request_lifetime says how long a person may take; requests from before `authserver db restored` "
        "have expired, too"
    ),
    # Pages
    "consent-needed": (
        "the request says that no page may be shown, and the person has not agreed to all of it: the client must send it "
        "again with pages"
    ),
    "access_denied": "nothing, if the person pressed Deny; a policy that refused is listed above",
    "request-unsealable": (
        "the request began in another browser, or the key that sealed it is not in authserver.secret_keys any more"
    ),
    "two-sessions": "another site below the same domain sets a cookie of that name: delete the cookies of this site",
    "form-token": (
        "the page is of an earlier session or another person, an operator changed the client after the page was shown, or the "
        "browser keeps no cookies: open the page again"
    ),
    # Plugins beyond the core
    "two-bindings": "two plugins bind the same token to two keys: remove one from authserver.plugins",
    # Registration
    "initial-access-token-required": (
        "the client must send an initial access token as a bearer token: one that `authserver initial-token add` made, or one "
        "of authserver.plugin.registration_token.tokens"
    ),
    "initial-access-token-used-up": f"all its uses are spent; {_ANOTHER_TOKEN}",
    "initial-access-token-expired": f"it has expired; {_ANOTHER_TOKEN}",
    "initial-access-token-revoked": f"an operator revoked it; {_ANOTHER_TOKEN}",
    "initial-access-token-restored": (
        f"it was made before the database was restored, and its uses since the backup are not known; {_ANOTHER_TOKEN}"
    ),
    "registration-policy-unknown": (
        "the policy of this token is not in authserver.plugin.registration_token.policies: add its line again, or make a "
        "token for another policy (`authserver initial-token add`)"
    ),
    "registration-policy-full": (
        "this policy has as many clients as its line in authserver.plugin.registration_token.policies allows: allow more, or "
        "disable some (`authserver client list`)"
    ),
    "auth-method-not-open": (
        "the client must use another token_endpoint_auth_method, or this one must be added to its line in "
        "authserver.plugin.registration_token.policies"
    ),
    "redirect-host-not-open": (
        "the client must send a redirect URI of a host that its line in authserver.plugin.registration_token.policies names, "
        "or the host must be added there"
    ),
    "too-many-unused-clients": (
        "unused clients that were registered from this source can be deleted for new ones when they are an hour old, those of "
        "other sources when they are a day old; authserver.unused_clients_per_source and authserver.unused_clients say how "
        "many there may be"
    ),
    "invalid_token": "the client must send a valid bearer token",
    "grant-type-not-open": "list one of the grant types that the client asked for in the grant_types of this plugin",
    "scope-not-open": "list the scopes that such clients may have in the scopes of this plugin",
    "no-grant-type": _OFFER_GRANT_TYPE,
    "no-scope": (
        "the scopes that the registration plugin gives must be listed in authserver.scopes; `authserver client add` needs a "
        "--scope"
    ),
    "no-redirect-uri": (
        f"the client must send redirect_uris, with at least one that is accepted here; {_ALLOW_PRIVATE_USE}"
    ),
    "not-everything-offered": "authserver.strict_registration refuses what would otherwise be left out",
    "invalid_client_metadata": (
        "the client must send other metadata: the description says what is wrong with it; a scope, grant type or method "
        "that it names could also be offered here"
    ),
    "request_uri_not_supported": (
        "list a plugin in authserver.plugins that reads such requests (expand_authorization_request)"
    ),
    # Plugins and the server itself
    "plugin-raised": "fix the plugin: the log has the traceback",
    "plugin-too-slow": "authserver.policy_time_limit says how long a plugin may take",
    "answer-too-large": "fix the plugin: an answer must be short, with a few names and no documents",
    "wrong-type": "fix the plugin: it must return allow(…), narrow(…), deny(…) or None",
    "wrong-verdict": "fix the plugin: it must make its answers with allow(…), narrow(…) and deny(…)",
    "bad-reason": "fix the plugin: a reason is lower-case words joined by hyphens",
    "wrong-value": "fix the plugin: `authserver plugins` and the hook's documentation say what it may answer",
    "server_error": "see the log under the error id",
    "unexpected-error": "see the log under the error id: it has the traceback",
    "too-busy": (
        "more people sign in at once than authserver.password_checks allows; if the machine has processors to spare, raise it"
    ),
    "storage-unavailable": "check the database, or give it more time; authserver.database_url names it",
    "temporarily_unavailable": "check the database, or give it more time; authserver.database_url names it",
}

# Mistakes of the sender of the request, which no setting changes.
WITHOUT_REMEDY = frozenset(
    {
        "client-id-differs",
        "client-refused",
        "content-type",
        "field-repeated",
        "grant-type-missing",
        "insufficient_scope",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "invalid_target",
        "key-differs",
        "method-not-allowed",
        "new-password-differs",
        "operator",
        "new-password-length",
        "new-password-same",
        "nobody-answered",
        "password-changed",
        "password-too-long",
        "pkce-challenge",
        "pkce-method",
        "pkce-missing",
        "request-answered",
        "request-entity-too-large",
        "request-too-long",
        "request_not_supported",
        "response-mode",
        "response-type-missing",
        "session-ended",
        "state-malformed",
        "too-many-resources",
        "two-methods",
        "unsupported_token_type",
        "verifier-malformed",
        "verifier-missing",
    }
)


def remedy_of(reason: str, declared: Mapping[str, str] = NOTHING) -> str:
    """What would change a refusal for this reason, with general words for the PLACES (see `template_of`)."""
    return filled(template_of(reason, declared))


def template_of(reason: str, declared: Mapping[str, str] = NOTHING) -> str:
    """What would change a refusal for this reason, with PLACES in it; "" if its plugin declares no remedy.

    Args:
        declared: the remedies that plugins declare in a mapping `reasons`; "" for a mistake of the client or user.
    """
    remedy = REMEDIES.get(reason, declared.get(reason))
    if reason in WITHOUT_REMEDY or remedy == "":
        return _ANOTHER_REQUEST
    return remedy or ""


def filled(remedy: str, words: Mapping[str, str] = NOTHING) -> str:
    """A remedy with words in its PLACES; other braces, such as those in the remedy of a plugin, stay."""
    return _PLACE.sub(lambda place: words.get(place[1]) or PLACES[place[1]], remedy)


def words_of(facts: Mapping[str, Any], *, missing_scopes: Sequence[str] = ()) -> Mapping[str, str]:
    """The words for the PLACES in a remedy, quoted for a shell.

    Args:
        facts: the facts of the refusal and of the questions before it.
        missing_scopes: the requested scopes that the client is not registered for.
    """
    words = {
        name: shlex.quote(value)
        for name in ("client_id", "redirect_uri", "grant_type", "registered_method")
        if isinstance(value := facts.get(name), str)
    }
    # A method is registered by its own name; requests show how such a client presents itself.
    if methods := [name for name, how in PRESENTATION.items() if how == facts.get("method")]:
        words["auth_method"] = methods[0]
    words["add_scopes"] = _options("--add-scope", missing_scopes)
    return words


def _options(name: str, values: Iterable[str]) -> str:
    return " ".join(f"{name} {shlex.quote(value)}" for value in values)
