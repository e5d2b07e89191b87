"""The OpenAPI document against the server: Schemathesis sends what the document allows, and what it forbids.

`make fuzz` sends many more. The grammar of `messages` knows OAuth; this one knows the document alone, and whether each
answer is in it. The checks are Schemathesis's own, all of them.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import BaseSchema, Case, GenerationMode
from schemathesis.config import SchemathesisConfig

from authserver.web.openapi import document
from tests.fuzzing.conftest import IS_LONG, examples
from tests.fuzzing.world import HOST, ISSUER, World

EACH = 400 if IS_LONG else 12
CONFIGURATION = {
    "checks": {
        # A request of the right form may be refused all the same: a code is another client's, a scope not for this one.
        "positive_data_acceptance": {"expected-statuses": ["2xx", 304, 400, 401, 403, 413]},
        "negative_data_rejection": {"expected-statuses": [400, 401, 405, 413]},
    }
}


@pytest.fixture(scope="module")
def schema(world: World) -> BaseSchema:
    """The document of the server that is fuzzed."""
    schema = schemathesis.openapi.from_dict(
        document(world.server.wsgi.registry), config=SchemathesisConfig.from_dict(CONFIGURATION)
    )

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        # What the check of a missing authorization sends goes to no host.
        return world.tried({**environ, "HTTP_HOST": HOST, "wsgi.url_scheme": "https"}, start_response)

    schema.app = app
    return schema


def test_the_document_is_valid(schema: BaseSchema) -> None:
    """By the JSON Schema of OpenAPI 3.1; a mistake in it is found."""
    schema.validate()
    wrong = schemathesis.openapi.from_dict({**schema.raw_schema, "info": "x"})
    with pytest.raises(Exception, match="not of type"):
        wrong.validate()


@pytest.mark.parametrize("mode", GenerationMode)
def test_every_answer_is_in_the_document(world: World, schema: BaseSchema, mode: GenerationMode) -> None:
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 16
    for operation in operations:
        if mode.is_negative and not operation.body:
            # What is sent to it cannot be wrong.
            continue

        @examples(EACH)
        @given(operation.as_strategy(generation_mode=mode), st.sampled_from((None, "web", "signer")))
        def call(case: Case, client: str | None) -> None:
            if client:
                _authenticate(world, case, client)
            answer = case.call(base_url=ISSUER)
            case.validate_response(answer)
            # What needs nobody's word is always answered.
            needs_token = bool(case.operation.security)
            assert case.operation.body or needs_token or answer.status_code == 200

        call()


def _authenticate(world: World, case: Case, client: str) -> None:
    """Let a client that there is send it, with a secret or an assertion."""
    if (case.query or {}).get("client_id") is not None:
        # The registration of a client.
        case.query["client_id"] = world.clients["stranger"].client_id
        case.headers["Authorization"] = f"Bearer {world.known['registration token of stranger']}"
        if isinstance(case.body, dict) and "client_id" in case.body:
            case.body["client_id"] = case.query["client_id"]
        return
    if "Authorization" in case.headers:
        return
    if isinstance(case.body, dict):
        for credential in ("client_secret", "client_assertion", "client_assertion_type"):
            case.body.pop(credential, None)
        if "client_id" in case.body:
            case.body["client_id"] = client
        if client == "signer":
            case.body |= world.signed(client)
            return
    case.headers["Authorization"] = world.known["basic of web"]
