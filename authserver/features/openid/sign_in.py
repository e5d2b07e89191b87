"""The parameters of a request about the sign-in: `prompt`, `max_age`, and the expected person (OIDC Core, 3.1.2.1).

Another plugin knows the levels of sign-in; for it, the parameters of OpenID Connect about levels are put into
`acr_values`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from authserver.api import (
    AuthenticationStep,
    Client,
    Decision,
    InvalidRequest,
    Parameters,
    Session,
    SignIn,
    allow,
    deny,
)
from authserver.api import translatable as _
from authserver.features.openid.claims import read_asked

LOGIN_REQUIRED = "login_required"
UNMET = "unmet_authentication_requirements"
PROMPTS = ("none", "login", "consent", "select_account")
DEFAULT_LEVELS = "default_acr_values"
DEFAULT_AGE = "default_max_age"
# The most digits of `max_age`; ten digits are three centuries.
_SECONDS = re.compile(r"[0-9]{1,10}")
# The difference that the clocks of our processes may have. A sign-in further in the future was made before the clock
# was set back, so its age is not known (T150).
_APART = 60


TOO_OLD = _("You signed in some time ago. This application asks for a more recent sign-in.")
AGAIN = _("This application asks you to sign in again.")
WHICH = _("This application asks which account you want to use.")


def implied(client: Client, parameters: Parameters) -> Mapping[str, str]:
    """The parameters that follow from the client's registration, and from the levels in `claims`.

    Malformed claims imply no parameter: they are refused later, when somebody is signed in.
    """
    try:
        needed = read_asked(parameters.get("claims")).levels
    except InvalidRequest:
        needed = ()
    levels = needed or client.details.get(DEFAULT_LEVELS, ())
    age = client.details.get(DEFAULT_AGE)
    found = {"acr_values": " ".join(levels), "max_age": "" if age is None else str(age)}
    return {name: value for name, value in found.items() if value}


def decide(
    session: Session | None, is_fresh: bool, parameters: Parameters
) -> Decision[AuthenticationStep | SignIn]:
    """The required sign-in of this request. Malformed parameters are refused later (`check`)."""
    prompts = _prompts(parameters)
    silent = "none" in prompts
    if session is None:
        # The client gets an error only when somebody is signed in (OAuth 2.1, 7.13.2).
        if prompts == ["none"]:
            return deny("openid-nobody-signed-in", LOGIN_REQUIRED)
        return allow("openid-sign-in-first", AuthenticationStep.GO_ON)
    why = ""
    with suppress(InvalidRequest):
        check(parameters)
        max_age = parameters.get("max_age")
        why = "" if is_fresh else _why_again(session, prompts, None if max_age is None else int(max_age))
    if why and silent:
        return deny("openid-sign-in-too-old", LOGIN_REQUIRED)
    if why:
        return allow("openid-sign-in-again", SignIn(step=AuthenticationStep.SIGN_IN_AGAIN, why=why))
    return allow("openid-sign-in-suffices", SignIn(silent=silent, asks="consent" in prompts))


def check(parameters: Parameters) -> None:
    """Raises InvalidRequest if the value of `prompt` or `max_age` is not allowed."""
    prompts, max_age = _prompts(parameters), parameters.get("max_age")
    if ("none" in prompts and len(prompts) > 1) or not set(prompts) <= set(PROMPTS):
        raise InvalidRequest("prompt has a value that it cannot have.", reason="openid-prompt-malformed")
    if max_age is not None and not _SECONDS.fullmatch(max_age):
        raise InvalidRequest("max_age has a value that it cannot have.", reason="openid-max-age-malformed")


def _prompts(parameters: Parameters) -> list[str]:
    return [value for value in (parameters.get("prompt") or "").split(" ") if value]


def _why_again(session: Session, prompts: Sequence[str], seconds: int | None) -> str:
    """The sentence that says why the person must sign in again; "" if they need not."""
    if "login" in prompts or seconds == 0:
        return AGAIN
    age = (datetime.now(UTC) - session.authenticated_at).total_seconds()
    if seconds is not None and not -_APART <= age <= seconds:
        return TOO_OLD
    return WHICH if "select_account" in prompts else ""
