"""What every policy holds to, whatever it decides."""

from __future__ import annotations

from authserver.testing.contract import policy_contract
from authserver_header_login import HeaderLogin

# The kit's questions come from anywhere and know no secret: the first is mostly allowed, the second never.
TestByNetwork = policy_contract(HeaderLogin(networks=("0.0.0.0/0", "::/0"), name_header="x-real-ip"))
TestBySecret = policy_contract(HeaderLogin)


def test_no_repr_shows_the_secret(policy: HeaderLogin, secret: str) -> None:
    assert secret not in repr(policy)
