"""A client redeems the code that a user's consent gave it (OAuth 2.1, 4.1.3)."""

from __future__ import annotations

from authserver.engine import pkce
from authserver.engine.asking import narrower_resources
from authserver.engine.context import Engine, Issue
from authserver.engine.crypto import digests
from authserver.engine.errors import InvalidGrant, InvalidRequest
from authserver.engine.grants.deriving import check_approved, redeem_approved
from authserver.engine.parameters import Parameters
from authserver.engine.questions import RedirectUriQuestion
from authserver.engine.records import Client, FoundToken, Token, TokenKind

_REFUSED = "The authorization code is not valid."
# The number of wrong proofs after which a code is used up, because somebody guesses (T035).
MAXIMUM_FAILURES = 5


def redeem(engine: Engine, client: Client, parameters: Parameters) -> Issue:
    """Check everything about the code and its grant; it is claimed when tokens are issued.

    Raises:
        InvalidRequest: `code` is missing, or `code_verifier` is malformed.
        InvalidGrant: the code is not this client's, not live, or not proven; a second, otherwise
            valid presentation revokes the grant (G-05), an unproven one revokes nothing (G-06). Or no resource
            of the grant exists any more.
        InvalidTarget: a resource that was not granted, or does not exist any more.
    """
    code = parameters.require("code")
    verifier = parameters.get("code_verifier")
    if verifier is None and not (engine.pkce_replacements or engine.pkce_waivers):
        # Each code here has a challenge. RFC 7636, 4.6 has this error, where OAuth 2.1 leaves it open.
        raise InvalidGrant("code_verifier is missing.", reason="verifier-missing")
    if verifier is not None and (problem := pkce.verifier_problem(verifier)):
        raise InvalidRequest(problem, reason="verifier-malformed")
    found = _find(engine, client, code)
    token, grant = found.token, found.grant
    redirect_uri = parameters.get("redirect_uri")
    if redirect_uri is not None and redirect_uri != token.details["redirect_uri"]:
        raise InvalidGrant(_REFUSED, reason="redirect-uri-differs", failed_token=token)
    _check_verifier(engine, token, verifier)
    named = parameters.all("resource")
    narrower_resources(named, token.resources)
    if token.claimed_at is not None:
        burnt = token.failures >= MAXIMUM_FAILURES
        raise InvalidGrant(
            _REFUSED,
            reason="code-burnt" if burnt else "code-replayed",
            revoke_grant=None if burnt else grant.grant_id,
        )
    _recheck(engine, client, found)
    return redeem_approved(engine, client, found, named, grant_type="authorization_code")


def _find(engine: Engine, client: Client, code: str) -> FoundToken:
    """The code, if it is one of this client's."""
    if not digests.well_formed(digests.CODE, code):
        raise InvalidGrant(_REFUSED, reason="code-malformed")
    found = engine.stores.tokens.find(TokenKind.CODE, digests.digest(TokenKind.CODE, code))
    if found is None:
        raise InvalidGrant(_REFUSED, reason="code-unknown")
    if found.token.client_id != client.client_id:
        raise InvalidGrant(_REFUSED, reason="code-of-another-client")
    engine.journal.grant_id = found.grant.grant_id
    engine.journal.user_id = found.grant.user_id
    return found


def _check_verifier(engine: Engine, token: Token, verifier: str | None) -> None:
    """Raises InvalidGrant unless the verifier fits the code.

    For a code without a challenge a verifier is refused: otherwise nobody would notice an attacker who removed the
    challenge (RFC 9700, 4.8.2). Such a code is accepted only while a plugin protects it in another way, or waives the
    protection.
    """
    challenge = token.details.get("code_challenge")
    if challenge is None and (engine.pkce_replacements | engine.pkce_waivers) & token.details.keys():
        if verifier is not None:
            raise InvalidGrant(_REFUSED, reason="verifier-without-challenge", failed_token=token)
        return
    if verifier is None:
        raise InvalidGrant("code_verifier is missing.", reason="verifier-missing")
    if not pkce.verify(challenge or "", verifier):
        raise InvalidGrant(_REFUSED, reason="verifier-wrong", failed_token=token)


def _recheck(engine: Engine, client: Client, found: FoundToken) -> None:
    """Check everything that may have changed since the user agreed (T041). Raises InvalidGrant."""
    check_approved(engine, found, refused=_REFUSED)
    redirect_uri = found.token.details["redirect_uri"]
    ruling = engine.ask(RedirectUriQuestion(client=client, redirect_uri=redirect_uri))
    if not ruling.allowed:
        raise InvalidGrant(_REFUSED, reason="redirect-uri-withdrawn")
