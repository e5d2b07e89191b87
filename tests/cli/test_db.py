"""`authserver db`."""

from __future__ import annotations

import json


def ready(bare, ini):
    """Secrets and the folder of the database, but no database."""
    folder = ini.parent / ".local"
    folder.mkdir()
    (folder / "secret_keys").write_text(bare("keys", "secret").stdout)


def test_upgrade_makes_the_tables_and_says_from_where_to_where(bare, ini) -> None:
    ready(bare, ini)
    first, second = bare("db", "upgrade"), bare("db", "upgrade")
    assert first.exit_code == 0, first.output
    assert "it was empty" in first.stdout
    assert second.exit_code == 0 and "as it was" in second.stdout


def test_current_fails_until_nothing_is_lacking(bare, ini) -> None:
    """A deployment script can wait for it by its exit status."""
    ready(bare, ini)
    before = bare("db", "current")
    assert before.exit_code == 1
    assert "authserver db upgrade" in before.stdout
    assert json.loads(bare("db", "current", "--json").stdout)["current"] is None
    bare("db", "upgrade")
    after = bare("db", "current", "--json")
    assert after.exit_code == 0
    answer = json.loads(after.stdout)
    assert answer["current"] == answer["head"] and answer["is_current"] is True
