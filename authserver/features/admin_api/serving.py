"""Answers requests to the API: authorizes the caller, reads the request, carries out the operation, and responds."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import msgspec
from pyramid.config import Configurator
from pyramid.response import Response

from authserver.administration import (
    AlreadyExists,
    BadAttributes,
    BadResource,
    BadSearch,
    BadUsername,
    ChangedMeanwhile,
    ClientUnchanged,
    SecretsUnchanged,
    signing_keys,
)
from authserver.api import (
    Bearer,
    Engine,
    InvalidClientMetadata,
    InvalidRedirectUri,
    InvalidRequest,
    Kept,
    Kind,
    Medium,
    Operation,
    Parameter,
    Problem,
    Request,
    Route,
    TooManyRequests,
    Unsealable,
    digest,
    from_text,
    json_response,
    object_schema,
    or_not_modified,
    read_body,
    read_json_object,
    read_query,
    to_text,
)
from authserver.api import ChangedMeanwhile as ClientChangedMeanwhile
from authserver.features.admin_api import problems
from authserver.features.admin_api.access import Guard
from authserver.features.admin_api.entries import (
    Administrator,
    Answer,
    Call,
    Entry,
    conflict,
    invalid,
    sentence,
)
from authserver.features.admin_api.paging import AFTER, LIMIT

JSON, MERGE_PATCH = "application/json", "application/merge-patch+json"
_MEDIA_TYPE = re.compile(r'(application/[a-z+-]+)(?:\s*;\s*charset="?utf-8"?)?\s*', re.IGNORECASE)
_ETAG = re.compile(r'\s*"([!#-~]{1,80})"\s*')
_KEY = re.compile(r"[!-~]{1,255}")
# The kind of the small records (`Kept`) with the answers to requests with an idempotency key, and how long they are kept.
ANSWERED = "admin-api-answer"
KEPT_FOR = timedelta(hours=24)
REPLAYED = "Idempotency-Replayed"
IDEMPOTENCY_KEY = Parameter(
    description="Any text of the client; within 24 hours the same request with the same key is done only once.",
    schema={"type": "string", "pattern": f"^{_KEY.pattern}$"},
)
IF_MATCH = Parameter(description="The ETag of the object to change (RFC 9110, 13.1.1).", required=True)
NEXT = Parameter(
    description="The cursor of the next page; null at the end. The header `Link` has its address.",
    schema={"type": ["string", "null"]},
    required=True,
)
BEARER = Bearer(
    name="admin_api_token",
    description="An access token of this server for its own API (RFC 6750, 2.1).",
    required=True,
)
_ALWAYS = (
    problems.INVALID_AUTHORIZATION,
    problems.INVALID_PARAMETER,
    problems.MALFORMED_BODY,
    problems.NO_TOKEN,
    problems.INVALID_TOKEN,
    problems.INVALID_PROOF,
    problems.NOT_FOUND,
)


def add_entries(config: Configurator, path: str, entries: Iterable[Entry], guard: Guard) -> None:
    """Add an endpoint for each path of these entries.

    Args:
        path: the path of the API, below the issuer.
    """
    by_path: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        by_path.setdefault(entry.path, {})[entry.method] = entry
    for below, methods in by_path.items():
        route = Route(
            f"admin_api{_name(below)}",
            path + below,
            tuple(methods),
            Medium.PROBLEM,
            administers=True,
            operation={method: described(entry) for method, entry in methods.items()},
        )
        config.add_endpoint(route, Endpoint(methods, path, guard))


def _name(path: str) -> str:
    """A path as a part of a route name: `/clients/{client_id}/secrets` becomes `_clients_client_id_secrets`."""
    return re.sub(r"[^a-z]+", "_", path).rstrip("_")


def described(entry: Entry) -> Operation:
    """An entry as an operation of the OpenAPI document."""
    found: list[Kind] = [*_ALWAYS, *entry.problems]
    headers: dict[str, Parameter] = {}
    if entry.scope:
        found.append(problems.INSUFFICIENT_SCOPE)
    if entry.method == "POST":
        headers["Idempotency-Key"] = IDEMPOTENCY_KEY
        found += [problems.INVALID_KEY, problems.KEY_REUSED, problems.ANSWER_LOST]
    if entry.body is not None:
        found += [problems.MEDIA_TYPE, problems.INVALID_MEMBERS]
    if entry.conditional and entry.method != "GET":
        headers["If-Match"] = IF_MATCH if entry.method == "PATCH" else replace(IF_MATCH, required=False)
        found.append(problems.PRECONDITION_FAILED)
    if entry.conditional and entry.method == "PATCH":
        found.append(problems.PRECONDITION_REQUIRED)
    if entry.paged:
        found.append(problems.INVALID_CURSOR)
    return Operation(
        summary=entry.summary,
        query=_query(entry),
        headers=headers,
        json=entry.body,
        consumes=MERGE_PATCH if entry.method == "PATCH" else JSON,
        status=entry.status,
        answer=_answer(entry),
        bearer=BEARER,
        scope=entry.scope,
        errors=(TooManyRequests,),
        open_to=("client_metadata",) if entry.open_body else (),
        problems=tuple(dict.fromkeys(found)),
        cached=entry.conditional and entry.method == "GET",
    )


def _answer(entry: Entry) -> Mapping[str, Parameter]:
    if not entry.listed:
        return entry.answer
    items = Parameter(
        description="The items of this answer.",
        schema={"type": "array", "items": object_schema(entry.answer)},
        required=True,
    )
    return {"items": items, "next": NEXT} if entry.paged else {"items": items}


def _query(entry: Entry) -> Mapping[str, Parameter]:
    return {**entry.query, "limit": LIMIT, "after": AFTER} if entry.paged else entry.query


@dataclass(frozen=True)
class Endpoint:
    """The view of one path.

    Attributes:
        methods: the entries of the path, by their method.
        path: the path of the API, below the issuer.
        guard: admits administrators.
    """

    methods: Mapping[str, Entry]
    path: str
    guard: Guard

    def __call__(self, request: Request) -> Response:
        entry = self.methods["GET" if request.method == "HEAD" else request.method]
        engine = request.engine
        administrator = self.guard.admit(engine, request.environ, entry.scope)
        call = self._call(request, entry, administrator)
        key = _idempotency_key(request) if entry.method == "POST" else None
        if key is None:
            return _response(request, entry, call)
        return _once(request, entry, call, key)

    def _call(self, request: Request, entry: Entry, administrator: Administrator) -> Call:
        """The call that the request makes. Raises Problem."""
        settings = request.application.parts.settings
        return Call(
            engine=request.engine,
            administrator=administrator,
            url=self.guard.protected.identifier,
            path=request.path_info.removeprefix(settings.issuer_path + self.path),
            ids=request.matchdict,
            query=_read_query(request, entry),
            sent=_read_body(request, entry),
            if_match=_if_match(request, entry),
            operator_groups=self.guard.operator_groups,
        )


def _response(request: Request, entry: Entry, call: Call) -> Response:
    """Carry out the operation, and answer. Raises Problem, NothingThere."""
    answer = _done(entry, call)
    if answer.body is None:
        response = Response(status=204)
        response.headers["Cache-Control"] = "no-store"
        return response
    response = json_response(answer.body, status=entry.status)
    if answer.location:
        response.headers["Location"] = call.url + answer.location
    if answer.after:
        query = [pair for pair in call.query.pairs() if pair[0] != "after"]
        address = f"{call.url}{call.path}?{urlencode([*query, ('after', answer.after)])}"
        response.headers["Link"] = f'<{address}>; rel="next"'
    if answer.etag and entry.method == "GET":
        # The client may keep the answer, and ask later whether it has changed.
        response.headers["Cache-Control"] = "private, no-cache"
        return or_not_modified(request, response, answer.etag)
    if answer.etag:
        response.headers["ETag"] = f'"{answer.etag}"'
    return response


def _once(request: Request, entry: Entry, call: Call, key: str) -> Response:
    """Carry out the operation, or repeat the answer if it was done before with this idempotency key.

    The key is claimed first, in the transaction of the operation: another request with the same key waits for this one, and
    then gets the same answer. If the operation is refused or fails, nothing was done, and the key is free again.
    """
    engine, mark = call.engine, _mark(call.engine, call, entry, key)
    if not engine.stores.kept.add_once(mark):
        known = engine.stores.kept.find(mark.kind, mark.digest)
        if known is None or known.expires_at > engine.now:
            return _replayed(engine, mark, known)
        # The record has expired, but the clean-up has not deleted it yet.
        mark = replace(mark, created_at=known.created_at)
        if not engine.stores.kept.change(known, mark):
            return _replayed(engine, mark, engine.stores.kept.find(mark.kind, mark.digest))
    response = _response(request, entry, call)
    headers = {name: response.headers[name] for name in ("Location", "ETag") if name in response.headers}
    told = {"status": response.status_int, "headers": headers, "body": response.body.decode()}
    sealed = engine.ring.seal(json.dumps(told).encode(), purpose=ANSWERED, context=mark.digest.hex())
    engine.stores.kept.change(
        mark, replace(mark, claimed_at=engine.now, details={**mark.details, "answer": to_text(sealed)})
    )
    return response


def _done(entry: Entry, call: Call) -> Answer:
    """The answer of an entry; a refusal of the engine becomes a problem. Raises Problem, NothingThere."""
    members = {*(entry.body or ()), *call.sent}
    try:
        return entry.act(call)
    except (InvalidClientMetadata, InvalidRedirectUri) as error:
        raise _about_member(error.description, members, reason=error.reason) from error
    except (BadUsername, BadAttributes, BadResource) as error:
        raise _about_member(str(error), members) from error
    except AlreadyExists as error:
        raise conflict(
            "There is one with this id or name already. Choose another id or name, or change that one."
        ) from error
    except (ChangedMeanwhile, ClientChangedMeanwhile) as error:
        # If the request has an ETag, this refuses it as outdated.
        call.is_unchanged("")
        raise conflict("It was changed by somebody else at the same time. Try again.") from error
    except (ClientUnchanged, SecretsUnchanged, signing_keys.CannotChange) as error:
        raise conflict(sentence(str(error))) from error
    except BadSearch as error:
        raise Problem(problems.INVALID_PARAMETER, sentence(str(error))) from error


def _about_member(text: str, members: Iterable[str], *, reason: str = "") -> Problem:
    """A refusal of the engine, with a pointer to the first member that its sentence names."""
    name = next((word for word in re.findall(r"[a-z_]+", text) if word in members), "")
    refused = invalid(**{name: sentence(text.removeprefix(f"{name}: "))})
    if reason:
        refused.reason = reason
    return refused


# ---- The request ------------------------------------------------------------------------------------------


def _read_query(request: Request, entry: Entry) -> Any:
    """The parameters of the address. Raises Problem for a parameter that the entry does not have."""
    try:
        query = read_query(request)
        known = _query(entry)
        query.refuse_repeated(
            allowed=frozenset(
                name for name, parameter in known.items() if parameter.schema.get("type") == "array"
            )
        )
    except InvalidRequest as error:
        raise Problem(problems.INVALID_PARAMETER, sentence(error.description)) from None
    if unknown := sorted(set(query.names()) - known.keys()):
        there = f"There are {', '.join(known)}." if known else "There are none here."
        raise Problem(problems.INVALID_PARAMETER, f"{unknown[0]}: there is no such parameter. {there}")
    return query


def _read_body(request: Request, entry: Entry) -> Mapping[str, Any]:
    """The members of the body. Raises Problem."""
    if entry.body is None:
        if request.content_length:
            raise Problem(problems.MALFORMED_BODY, "This request has no body; send none.")
        return {}
    wanted = MERGE_PATCH if entry.method == "PATCH" else JSON
    sent = _MEDIA_TYPE.fullmatch(request.environ.get("CONTENT_TYPE", ""))
    if sent is None or sent[1].lower() != wanted:
        name = "Accept-Patch" if entry.method == "PATCH" else "Accept"
        raise Problem(
            problems.MEDIA_TYPE, f"Send {wanted}, and say so in Content-Type.", headers={name: wanted}
        )
    try:
        members = read_json_object(read_body(request))
    except ValueError as error:
        raise Problem(problems.MALFORMED_BODY, f"The body must be a JSON object: {error}.") from None
    known = {*entry.body, *(entry.open_body(request.engine) if entry.open_body else ())}
    if unknown := {name for name in members if name not in known}:
        there = ", ".join(sorted(known))
        raise invalid(**dict.fromkeys(sorted(unknown)[:10], f"There is no such member; there are {there}."))
    return members


def _if_match(request: Request, entry: Entry) -> frozenset[str] | None:
    """The ETags of `If-Match`; None if every ETag is accepted. Raises Problem if the header is required and missing."""
    text = request.headers.get("If-Match")
    if text is None and entry.conditional and entry.method == "PATCH":
        raise Problem(
            problems.PRECONDITION_REQUIRED,
            "Get it first, and send its ETag in If-Match, so that no change of somebody else is lost; "
            "`If-Match: *` changes it without this check.",
        )
    if text is None or text.strip() == "*":
        return None
    return frozenset(found[1] for part in text.split(",") if (found := _ETAG.fullmatch(part)))


# ---- Idempotency keys -------------------------------------------------------------------------------------


def _idempotency_key(request: Request) -> str | None:
    """The `Idempotency-Key` of a request. Raises Problem."""
    key: str | None = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise Problem(
            problems.INVALID_KEY,
            "An idempotency key has 1 to 255 visible ASCII characters; take a random UUID for each request.",
        )
    return key


def _mark(engine: Engine, call: Call, entry: Entry, key: str) -> Kept:
    """The small record of the fact that this administrator used this key for this request."""
    who = f"{call.administrator.client.client_id}\0{call.administrator.actor}"
    request = [entry.method, call.path, sorted(call.query.pairs()), call.sent]
    return Kept(
        kind=ANSWERED,
        digest=digest(ANSWERED, f"{who}\0{key}"),
        created_at=engine.now,
        expires_at=engine.now + KEPT_FOR,
        details={"request": hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()},
    )


def _replayed(engine: Engine, mark: Kept, known: Kept | None) -> Response:
    """The answer that was given with this key. Raises Problem."""
    if known is None or known.details.get("request") != mark.details["request"]:
        raise Problem(
            problems.KEY_REUSED,
            "This idempotency key was used for another request within 24 hours. Use a new key for each request.",
        )
    try:
        opened = engine.ring.open(
            from_text(known.details.get("answer", "")), purpose=ANSWERED, context=mark.digest.hex()
        )
    except Unsealable:
        raise Problem(
            problems.ANSWER_LOST,
            "The request was done, but its answer cannot be read any more. Check whether its result exists; "
            "to make another one, use a new idempotency key.",
        ) from None
    told = json.loads(opened)
    response = Response(body=told["body"].encode(), status=told["status"], content_type=JSON, charset=None)
    if not told["body"]:
        del response.headers["Content-Type"]
    response.headers.update({"Cache-Control": "no-store", REPLAYED: "true", **told["headers"]})
    return response
