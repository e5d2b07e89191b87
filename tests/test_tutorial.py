"""docs/first-policy.rst, done as it is told: from `plugin new` to a running server that decides otherwise."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

from authserver.testing.live import free_port

CHECKOUT = Path(__file__).parent.parent
PAGE = (CHECKOUT / "docs/first-policy.rst").read_text(encoding="utf-8")


def block(language: str, caption: str = "") -> str:
    """The code block of this language, or the one with this caption."""
    option = rf" {{3}}:caption: {re.escape(caption)}\n" if caption else ""
    (found,) = re.findall(rf"\.\. code-block:: {language}\n{option}\n((?: {{3}}.*\n|\n)+)", PAGE)
    return textwrap.dedent(found).strip() + "\n"


def typed(beginning: str) -> list[str]:
    """The words of the first command line of the page that begins like this."""
    lines = re.findall(r"^ {3}\$ (.*)", PAGE.replace("\\\n", " "), re.MULTILINE)
    return shlex.split(next(line for line in lines if line.startswith(beginning)))


def test_from_a_new_plugin_to_a_changed_decision_on_a_running_server(tmp_path: Path) -> None:
    """E-15: what the page says happens, in its order; the running server narrows what it gave before."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    project = tmp_path / "authserver-release-freeze"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(project / "src"), str(CHECKOUT)]),
        "PYTHONWARNINGS": "ignore",
        "PYTEST_ADDOPTS": "",
    }

    def run(module: str, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())", *words]
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def tests() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "../authserver-release-freeze"],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    port = free_port()
    ini = checkout / "development.ini"
    text = (CHECKOUT / "development.ini").read_text().replace("localhost:6543", f"localhost:{port}")
    ini.write_text(re.sub(r"(?m)^http_port = 6543", f"http_port = {port}", text))
    run("authserver.cli", "-c", "development.ini", "demo")
    assert granted(checkout, environment, port) == "notes.read notes.write"

    begun = time.monotonic()
    run("authserver.cli", *typed(".venv/bin/authserver plugin new")[1:])
    install(project)
    # That its tests pass as they are written is tested for every hook (`tests/cli/test_plugin.py`).
    files = (
        "src/authserver_release_freeze/__init__.py",
        "tests/test_release_freeze.py",
    )
    for file in files:
        assert (project / file).is_file()
        (project / file).write_text(block("python", file))
    assert "passed" in tests()

    tried = run("authserver.cli", *typed(".venv/bin/authserver -c development.ini policy try")[1:], status=3)
    printed = [line.strip() for line in PAGE[PAGE.index("policy try release_freeze") :].splitlines()[2:4]]
    assert all(line in tried.stdout for line in printed), tried.stdout

    list_with_dots, setting = block("ini").rsplit("\n", 2)[0], block("ini").rsplit("\n", 2)[1]
    assert list_with_dots.splitlines()[:2] == ["authserver.plugins =", "    ..."]
    ini.write_text(switched_on(ini.read_text(), list_with_dots.splitlines()[2], setting))
    after = granted(checkout, environment, port)
    print(f"from `plugin new` to a changed decision: {time.monotonic() - begun:.1f} s")  # noqa: T201 - told to whoever asks with -s
    assert f'"scope":"{after}"' == block("text").strip() == '"scope":"notes.read"'

    table = run("authserver.cli", "-c", "development.ini", "plugins", "--json").stdout
    (row,) = [row for row in json.loads(table) if row["hook"] == "scope_decision"]
    assert "release_freeze" in row["plugins"]


def install(project: Path) -> None:
    """What `pip install -e` leaves: the folder on the path, and the entry point."""
    described = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    metadata = project / "src" / "authserver_release_freeze-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: 0.1.0\n")
    ((group, points),) = described["entry-points"].items()
    (metadata / "entry_points.txt").write_text(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
    )


def switched_on(text: str, line: str, setting: str) -> str:
    """The INI with one more line at the end of the list of plugins, and one setting after it."""
    found = re.search(r"(?m)^authserver\.plugins =\n(?: +.*\n)+", text)
    assert found
    return f"{text[: found.end()]}{line}\n{setting}\n{text[found.end() :]}"


def granted(checkout: Path, environment: dict[str, str], port: int) -> str:
    """The scopes that the demo client gets from a server that runs for just this question."""
    served = subprocess.Popen(
        [sys.executable, "-c", "from pyramid.scripts.pserve import main; main()", "development.ini"],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    words = typed("curl")
    form = "&".join(word.replace(" ", "+") for word in words if re.match(r"(grant_type|scope)=", word))
    secret = (checkout / ".local/demo-service.secret").read_text().strip()
    basic = base64.b64encode(f"demo-service:{secret}".encode()).decode()
    url = words[-1].replace("6543", str(port))
    request = urllib.request.Request(url, form.encode(), {"Authorization": f"Basic {basic}"})
    try:
        deadline = time.monotonic() + 60
        while served.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(request, timeout=10) as response:
                    return str(json.load(response)["scope"])
            except urllib.error.HTTPError:
                raise
            except OSError:
                time.sleep(0.1)
        served.terminate()
        raise AssertionError(served.communicate()[0])
    finally:
        served.terminate()
        served.communicate()
