"""What every policy holds to, whatever it decides."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from authserver.api import Secret
from authserver_header_login import HeaderLogin


def test_it_is_a_frozen_value_that_can_be_hashed(policy: HeaderLogin) -> None:
    again = HeaderLogin(proxy_secret=policy.proxy_secret, name_header=policy.name_header)
    assert policy == again and hash(policy) == hash(again)
    with pytest.raises(FrozenInstanceError):
        policy.header = "x-user"  # type: ignore[misc]  # that it cannot be done is the test


def test_no_repr_shows_the_secret(policy: HeaderLogin) -> None:
    assert isinstance(policy.proxy_secret, Secret)
    assert policy.proxy_secret.value not in repr(policy)
