"""Every sentence of the pages can be translated: the catalogue template holds them all."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from babel.messages.pofile import read_po

CHECKOUT = Path(__file__).parents[1]
LOCALE = CHECKOUT / "authserver" / "locale"


def test_the_catalogue_template_is_what_pybabel_extracts_now(tmp_path: Path) -> None:
    """The command stands in babel.cfg; whoever changes a sentence runs it."""
    found = re.search(r"^# +(pybabel extract .*)$", (LOCALE / "babel.cfg").read_text(), re.MULTILINE)
    assert found
    command = shlex.split(found[1])
    command[command.index("-o") + 1] = str(tmp_path / "new.pot")
    subprocess.run(
        [sys.executable, "-m", "babel.messages.frontend", *command[1:]],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    )
    sentences = []
    for path in (LOCALE / "authserver.pot", tmp_path / "new.pot"):
        with path.open("rb") as file:
            sentences.append({str(message.id) for message in read_po(file)})
    assert sentences[0] == sentences[1]
    assert {
        "Sign in",
        "Something went wrong",
        "Server metadata",
        "state holds characters outside %x20-7E.",
    } <= (sentences[0])
