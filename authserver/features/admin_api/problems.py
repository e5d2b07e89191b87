"""The kinds of problems that the API may answer, beside those of every endpoint (RFC 9457)."""

from authserver.api import Kind

NO_TOKEN = Kind("no-token", 401, "An access token is needed")
INVALID_TOKEN = Kind("invalid-token", 401, "The access token is not accepted")
INVALID_PROOF = Kind("invalid-proof", 401, "The proof of the key of the token is not accepted")
INVALID_AUTHORIZATION = Kind("invalid-authorization", 400, "The Authorization header cannot be read")
INSUFFICIENT_SCOPE = Kind("insufficient-scope", 403, "The access token lacks a scope")
BEYOND_OWN_SCOPES = Kind("beyond-own-scopes", 403, "This would give more rights than the access token has")
NOT_FOUND = Kind("not-found", 404, "Not Found")

INVALID_PARAMETER = Kind("invalid-parameter", 400, "A parameter of the address cannot be used")
INVALID_CURSOR = Kind("invalid-cursor", 400, "The cursor is not one of this list")
MALFORMED_BODY = Kind("malformed-body", 400, "The body cannot be read")
INVALID_MEMBERS = Kind("invalid-members", 422, "Members of the body cannot be used")
MEDIA_TYPE = Kind("unsupported-media-type", 415, "The body has another media type")

CONFLICT = Kind("conflict", 409, "This is not possible as things are now")
PRECONDITION_FAILED = Kind("precondition-failed", 412, "It was changed meanwhile")
PRECONDITION_REQUIRED = Kind("precondition-required", 428, "The ETag of what is changed is needed")

INVALID_KEY = Kind("invalid-idempotency-key", 400, "The idempotency key cannot be used")
KEY_REUSED = Kind("idempotency-key-reused", 422, "The idempotency key was used for another request")
ANSWER_LOST = Kind("idempotency-answer-lost", 409, "The first answer cannot be given again")
