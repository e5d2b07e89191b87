"""What operators do, for features that let them do it: engine functions, their refusals and what they return.

Commands call the same functions. A feature imports from here and from `authserver.api`, never from the engine.
"""

from authserver.engine import operators, resources
from authserver.engine.audit import MAXIMUM_PAGE, BadSearch, refused_types, source_of, types_of
from authserver.engine.audit import search as search_events
from authserver.engine.clients import initial_tokens
from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.editing import (
    ChangedMeanwhile,
    ClientEdit,
    ClientUnchanged,
    Edited,
    ListEdit,
    edit,
    members,
)
from authserver.engine.clients.registration import add_client, fitting_metadata
from authserver.engine.clients.secrets import (
    LastSecret,
    SecretsUnchanged,
    TwoLiveSecrets,
    client_with_secrets,
    end_secret,
    live_secrets,
    rotate_secret,
)
from authserver.engine.crypto.jose import ALGORITHMS
from authserver.engine.keys import ring, signing_keys
from authserver.engine.people.account import (
    Ended,
    disconnect,
    enable_user,
    revoke_grant,
    sign_out_everywhere,
    user_id_of,
)
from authserver.engine.people.attributes import BadAttributes
from authserver.engine.people.attributes import ChangedMeanwhile as UserChangedMeanwhile
from authserver.engine.people.attributes import change as change_user
from authserver.engine.people.login import BadPassword, add_user, disable_user
from authserver.engine.people.usernames import BadUsername
from authserver.engine.ports import AlreadyExists
from authserver.engine.records import ClientState, EventFilter, InitialTokenState, KeyState, SigningKey
from authserver.engine.resources import MINIMUM_LIFETIME, BadResource
from authserver.settings import MAXIMUM_ACCESS_TOKEN_LIFETIME as MAXIMUM_LIFETIME
from authserver.settings import AccessTokenFormat as TokenFormat

__all__ = [
    "ALGORITHMS",
    "MAXIMUM_LIFETIME",
    "MAXIMUM_PAGE",
    "MINIMUM_LIFETIME",
    "AlreadyExists",
    "BadAttributes",
    "BadPassword",
    "BadResource",
    "BadSearch",
    "BadUsername",
    "ChangedMeanwhile",
    "ClientEdit",
    "ClientState",
    "ClientUnchanged",
    "Edited",
    "Ended",
    "EventFilter",
    "InitialTokenState",
    "KeyState",
    "LastSecret",
    "ListEdit",
    "SecretsUnchanged",
    "SigningKey",
    "TokenFormat",
    "TwoLiveSecrets",
    "UserChangedMeanwhile",
    "add_client",
    "add_user",
    "change_user",
    "client_with_secrets",
    "disable_client",
    "disable_user",
    "disconnect",
    "edit",
    "enable_user",
    "end_secret",
    "fitting_metadata",
    "initial_tokens",
    "live_secrets",
    "members",
    "operators",
    "refused_types",
    "resources",
    "revoke_grant",
    "ring",
    "rotate_secret",
    "search_events",
    "sign_out_everywhere",
    "signing_keys",
    "source_of",
    "types_of",
    "user_id_of",
]
