"""Migrations make exactly the tables that the stores expect, on both databases."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.sql import operators, visitors

from authserver.storage import migrate
from authserver.storage.database import Database
from authserver.storage.tables import Base

CHECKOUT = Path(__file__).parents[2]


def test_an_upgraded_database_is_what_the_tables_say(empty_url: str) -> None:
    """House rule 24: no difference between migrations and models."""
    assert migrate.current(empty_url) is None
    migrate.upgrade(empty_url)
    assert migrate.current(empty_url) == migrate.head()
    database = Database(empty_url)
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        # The comparison does not look at the condition of a partial index.
        for table in Base.metadata.sorted_tables:
            found = {index["name"]: index for index in sa.inspect(connection).get_indexes(table.name)}
            for index in table.indexes:
                assert words(found[index.name]["dialect_options"], connection) == words(
                    index.dialect_options[connection.dialect.name], connection
                )
    assert database.revision() == migrate.head()
    database.close()


def words(options: Mapping[str, Any], connection: sa.Connection) -> set[str]:
    """Names, literals and negations of a partial index's condition, however the database spells it."""
    dialect = connection.dialect
    condition = options.get("where", options.get(f"{dialect.name}_where"))
    if isinstance(condition, sa.ClauseElement):
        condition = condition.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    spelling = {"in", "any", "array", "text", "character", "varying"}
    text = ("" if condition is None else str(condition)).lower().replace("<> all", "not in")
    found = set(re.findall(r"\w+", re.sub(r"\b\w+\.", "", text)))
    return {word for word in found if word not in spelling and not word.isdecimal()}


def test_upgrading_again_changes_nothing(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    migrate.upgrade(empty_url)
    assert migrate.current(empty_url) == migrate.head()


def test_several_processes_upgrade_one_database(empty_url: str) -> None:
    """T113 for the tables: whoever comes second waits and finds everything done."""
    program = "import sys; from authserver.storage import migrate; migrate.upgrade(sys.argv[1])"
    with ThreadPoolExecutor(3) as threads:
        runs = [
            threads.submit(
                subprocess.run,
                [sys.executable, "-c", program, empty_url],
                cwd=CHECKOUT,
                capture_output=True,
                text=True,
                check=False,
            )
            for _ in range(3)
        ]
    assert [run.result().stderr for run in runs if run.result().returncode] == []
    assert migrate.current(empty_url) == migrate.head()


def test_a_migration_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    """T115: the last table of the first migration is in the way."""
    database = Database(empty_url)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE signing_keys (kid TEXT)")
        with pytest.raises(sa.exc.DBAPIError):
            migrate.upgrade(empty_url)
        assert sa.inspect(connection).get_table_names() == ["signing_keys"]
    database.close()


def test_the_alembic_command_reads_the_ini_file(tmp_path: Path) -> None:
    ini = tmp_path / "server.ini"
    ini.write_text(
        "[app:main]\n"
        f"authserver.database_url = sqlite:///{tmp_path}/by-command.db\n"
        "[alembic]\n"
        f"script_location = {CHECKOUT}/alembic\n"
        "path_separator = os\n"
    )
    for arguments in (["upgrade", "head"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "alembic", "-c", str(ini), *arguments],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert migrate.current(f"sqlite:///{tmp_path}/by-command.db") == migrate.head()


def test_no_partial_index_compares_a_part_of_a_primary_key() -> None:
    """Rows are looked up by `part = ?`: SQLite would compare it with `part = 'value'`, and compile the statement each time."""
    partial = [
        (index.name, condition, column)
        for table in Base.metadata.tables.values()
        for index in table.indexes
        if (condition := index.dialect_options["sqlite"]["where"]) is not None
        for column in table.primary_key
    ]
    assert partial
    assert not [
        (name, column.name)
        for name, condition, column in partial
        for part in visitors.iterate(condition)
        if isinstance(part, sa.BinaryExpression) and part.operator is operators.eq and part.left is column
    ]
