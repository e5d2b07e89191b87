"""What every policy holds to, whatever it decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from authserver.api import Secret
from authserver.testing.contract import policy_contract
from authserver.testing.strategies import question
from authserver_ldap_login import LdapLogin

# Real people with right and wrong passwords among the kit's strangers.
people: st.SearchStrategy[Any] = st.builds(
    replace,
    question("login_decision"),
    username=st.sampled_from(("ann", "bob", "eve", "fay", "*", "ann)(uid=*")),
    password=st.sampled_from(("ann's password", "bob's password", "eve's password", "")).map(Secret),
)

# A directory is asked over the network, two connections a question.
TestLdapLogin = policy_contract(
    LdapLogin, examples=30, quick=1.0, questions={"login_decision": question("login_decision") | people}
)


def test_no_repr_shows_the_secret(policy: LdapLogin) -> None:
    assert policy.bind_password.value not in repr(policy)
