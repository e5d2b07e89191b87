"""The contract of stores, held by those in memory and in both databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

import pytest

from authserver.engine.ports import Storage
from authserver.storage.database import Database
from authserver.testing.records import a_user
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


def test_a_person_is_compared_by_what_is_kept_and_not_by_its_text(database: Database) -> None:
    """Another program may have copied the table from one database to the other, with spaces in its JSON."""
    user = a_user(groups=("audit", "staff"), attributes=MappingProxyType({"room": ("1",)}))
    with database.begin() as stores:
        stores.users.add(user)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            """UPDATE users SET groups = '["audit", "staff"]', attributes = '{"room": ["1"]}'"""
        )
    with database.begin() as stores:
        assert stores.users.change(replace(user, groups=()), instead_of=user)
