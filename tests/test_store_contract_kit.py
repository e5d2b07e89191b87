"""The contract of stores, as an author of stores uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from authserver.engine.ports import Storage
from authserver.testing.store_contract import store_contract
from authserver.testing.stores import MemoryStores, MemoryTokens


@contextmanager
def our_storage() -> Iterator[Storage]:
    yield MemoryStores()


# One line, as in the module's own words: pytest finds the class, and each promise is a test of it.
TestOurStores = store_contract(our_storage)


class ForgetfulTokens(MemoryTokens):
    """A token can be claimed again and again."""

    def claim(self, token, now, **successor) -> bool:
        return True


def test_who_breaks_a_promise_is_told_which() -> None:
    """R-07."""
    stores = MemoryStores()
    stores.tokens = ForgetfulTokens(stores.tables, stores.clients.lock)
    promise = vars(TestOurStores)["test_a_token_is_claimed_once_and_keeps_its_first_successor"]
    with pytest.raises(AssertionError):
        promise.__func__(stores)


def test_the_contract_covers_clean_up_too() -> None:
    assert {"test_a_client_comes_back_as_it_was", "test_what_ends_at_the_very_moment_goes"} <= vars(
        TestOurStores
    ).keys()
