"""What every policy holds to, whatever it decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import pytest

from authserver_ldap_login import LdapLogin


def test_it_is_a_frozen_value_that_can_be_hashed(make_policy: Callable[..., LdapLogin]) -> None:
    policy, again = make_policy(), make_policy()
    assert policy == again and hash(policy) == hash(again)
    with pytest.raises(FrozenInstanceError):
        policy.base = "dc=elsewhere"  # type: ignore[misc]  # that it cannot be done is the test


def test_no_repr_shows_the_secret(policy: LdapLogin) -> None:
    assert policy.bind_password.value not in repr(policy)
