"""`authserver serve`: what pserve does; and an INI file that cannot be read is one line (file, line, remedy)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from authserver.testing.live import free_port

SECTIONS = "[app:main]\nuse = egg:authserver\n[server:main]\nuse = egg:authserver\n"
SECRET = "not-to-be-shown"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{SECRET}\n", ", line 1: is in no section; begin the file with [app:main]"),
        (f"{SECTIONS}{SECRET}\n", ", line 5: is no `name = value`; write it so, "),
        (f"{SECTIONS}threads = 4\nthreads = {SECRET}\n", ", line 6: threads is in [server:main] already; "),
        (f"{SECTIONS}[app:main]\n", ", line 5: [app:main] is there already; join the two sections"),
        (f"{SECTIONS}get = x\nthreads = %(few)s{SECRET}\n", ": threads in [server:main] refers to %(few)s, "),
        (f"{SECTIONS}threads = 4%{SECRET}\n", ": threads in [server:main] has a % that begins no %(name)s; "),
        ("[app:main]\nuse = egg:authserver\n", ": No section 'main' (prefixed by 'server') found in config "),
        (SECTIONS.replace("[app:main]", "[app:other]"), ": No section 'main' (prefixed by 'app' or "),
        (
            SECTIONS.replace("egg:authserver\n[server", "egg:autserver\n[server"),
            ": a section uses autserver, which is not installed; write `use = egg:authserver`",
        ),
        (
            SECTIONS + "[loggers]\nkeys = root\n[handlers]\nkeys =\n[formatters]\nkeys =\n",
            ": the sections about the log cannot be used: ",
        ),
        (
            SECTIONS.encode() + b"#\n" * 10_000 + b"# caf\xe9\n",
            ", line 10005: is no UTF-8 text; save the file in that encoding",
        ),
    ],
    ids=[
        "no section",
        "no value",
        "option twice",
        "section twice",
        "unknown variable",
        "percent",
        "no server",
        "no app",
        "not installed",
        "log",
        "encoding",
    ],
)
def test_an_ini_file_that_cannot_be_read_ends_serve_with_one_line(
    bare, tmp_path: Path, text: str | bytes, said: str
) -> None:
    """T142: the file, the line and the remedy, and nothing of what the line says, which may be a secret."""
    path = tmp_path / "broken.ini"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = bare("serve", config=path)
    assert result.exit_code == 1
    first, line, *rest = result.output.splitlines()
    assert (first, rest) == ("authserver cannot start:", [])
    assert line.startswith(f"  {path}{said}")
    assert SECRET not in result.output


def test_a_file_that_is_not_there_or_may_not_be_read(bare, tmp_path: Path) -> None:
    result = bare("serve", config=tmp_path / "elsewhere.ini")
    assert result.exit_code == 1
    assert f"{tmp_path / 'elsewhere.ini'}: no such file; name the server's INI file" in result.stderr


def test_a_word_that_is_no_variable_is_named(bare) -> None:
    result = bare("serve", "http_port")
    assert result.exit_code == 2
    assert "'http_port' is not NAME=VALUE" in result.stderr


def test_serve_serves_and_starts_processes_that_say_the_same(run, ini: Path) -> None:
    """R-18: variables reach every process, and a reload of a file that cannot be read is given up with its line."""
    assert run("plugins").exit_code == 0
    port = free_port()
    text = ini.read_text()
    assert "\n# processes = 0\n" in text
    text = text.replace("\n# processes = 0\n", "\nprocesses = 1\n")
    text = text.replace("listen = localhost:6543", "listen = localhost:%(http_port)s")
    ini.write_text(text)
    log = ini.parent / "serve.log"
    program = Path(sys.executable).with_name("authserver")
    command = [program, "-c", str(ini), "serve", f"http_port={port}"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until(lambda: "process 1 answers" in log.read_text(), log)
        assert urlopen(f"http://localhost:{port}/health/live").status == 200
        ini.write_text("nothing\n" + text)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the processes that ran before continue" in log.read_text(), log)
        assert f"{ini}, line 1: is in no section" in log.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def wait_until(condition, log: Path) -> None:
    end = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
