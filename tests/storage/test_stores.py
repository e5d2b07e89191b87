"""The contract of stores, held by those in memory and in both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from authserver.engine.ports import Storage
from authserver.storage.database import Database
from authserver.testing.store_contract import store_contract
from authserver.testing.stores import MemoryStores


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def storage(request: pytest.FixtureRequest) -> Iterator[Storage]:
    if request.param == "memory":
        yield MemoryStores()
        return
    database = Database(request.getfixturevalue(f"{request.param}_url"))
    yield database
    database.close()


TestStores = store_contract()
