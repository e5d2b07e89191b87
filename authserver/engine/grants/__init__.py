"""The grant types of the core. Each returns an `Issue` with what may be issued; `engine.tokens.issuing` issues it."""

from __future__ import annotations

from collections.abc import Mapping

from authserver.engine.context import Redeem
from authserver.engine.grants import authorization_code, client_credentials, refresh_token

CORE: Mapping[str, Redeem] = {
    "authorization_code": authorization_code.redeem,
    "refresh_token": refresh_token.redeem,
    "client_credentials": client_credentials.redeem,
}
