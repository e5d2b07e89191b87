"""What every policy holds to, whatever it decides."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from authserver.api import Decision, deny, narrow
from authserver.testing.records import a_client, a_user
from authserver_team_scopes import TeamScopes


def test_it_is_a_frozen_value_that_can_be_hashed(policy: TeamScopes) -> None:
    again = TeamScopes(file=policy.file, timezone=policy.timezone, check_seconds=policy.check_seconds)
    assert policy == again and hash(policy) == hash(again)
    with pytest.raises(FrozenInstanceError):
        policy.timezone = "UTC"  # type: ignore[misc]  # that it cannot be done is the test


def test_the_same_question_has_the_same_answer(policy: TeamScopes) -> None:
    def ask() -> Decision | None:
        return policy.scope_decision(user=a_user(username="bob"), requested=a_client().scopes)

    assert ask() == ask() == deny("not-for-team")
    assert policy.scope_decision(user=a_user(username="bob"), requested=("files.read",)) == narrow(
        "scopes-of-teams", ("profile", "files.read")
    )
