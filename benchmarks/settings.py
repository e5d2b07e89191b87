"""The server that is measured: `pserve production.ini` as it is shipped, on PostgreSQL.

A deployment sets some variables of the environment, and so does this. Two values of the INI file are others: how often a
client may come, or most of what is measured would be refusals, and how long the server waits for proxies before it ends.
"""

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from paste.deploy import appconfig

CHALLENGE = os.environ.get("CHALLENGE", "")
SECRET = "benchsecret0123456789abcdefABCDEF0123456789"
REDIRECT_URI = "https://client.example/cb"
RESOURCE = "https://api.example/"
# Of the key ring.
KEY_ID = "bench"
HOST = "auth.bench.example"
# What the proxy in front of a server adds to each request.
PROXY = {"Host": HOST, "X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
PRODUCTION = Path(__file__).resolve().parent.parent / "production.ini"
_KEY = base64.b64encode(hashlib.sha256(b"benchmark").digest()).decode()
# A line of the table of limits: name = what, whose, number, time.
_LIMIT = re.compile(r"(?m)^(    [a-z-]+ = [a-z_]+, [a-z+]+, )\d+(?=, )")


def environment(database_url: str) -> dict[str, str]:
    """The variables that production.ini names."""
    return {
        "AUTHSERVER_ISSUER": f"https://{HOST}",
        "AUTHSERVER_DATABASE_URL": database_url,
        "AUTHSERVER_SECRET_KEYS": f"{KEY_ID}:{_KEY}",
        "AUTHSERVER_RESOURCES": f"{RESOURCE} = *",
        "AUTHSERVER_REGISTRATION_TOKENS": f"as_initial_{'0' * 43}",
    }


def write_ini(folder: Path, changes: Mapping[str, str] | None = None, plugins: Iterable[str] = ()) -> Path:
    """A copy of production.ini in this folder.

    Args:
        changes: settings that differ further, by name.
        plugins: those that are switched on further.
    """
    text, limits = _LIMIT.subn(r"\g<1>1000000", PRODUCTION.read_text())
    assert limits > 10, "production.ini has no table of limits any more"
    for name, value in {"stop_delay": "0", **(changes or {})}.items():
        text, lines = re.subn(
            rf"(?m)^(?:# )?{re.escape(name)} = .*$", lambda _, line=f"{name} = {value}": line, text
        )
        assert lines == 1, f"production.ini has no line for {name} any more"
    for name in plugins:
        text, lines = re.subn(rf"(?m)^    # {re.escape(name)}$", f"    {name}", text)
        assert lines == 1, f"production.ini has no line for the plugin {name} any more"
    path = folder / "bench.ini"
    path.write_text(text)
    return path


def ini(plugins: Iterable[str] = ()) -> dict[str, str]:
    """The settings of the same server, for a program that uses its parts without a web."""
    os.environ.update(environment(os.environ.get("DATABASE_URL", "postgresql+psycopg:///unused")))
    with TemporaryDirectory() as folder:
        return dict(appconfig(f"config:{write_ini(Path(folder), plugins=plugins)}", name="main").local_conf)
