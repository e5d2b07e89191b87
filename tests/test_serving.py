"""How `pserve` starts, and ends when it cannot: addresses, variables of the command line, what it prints."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from paste.deploy import appconfig
from waitress.adjustments import Adjustments

from authserver.app import wsgi
from authserver.cli import main
from authserver.ini import unused_variables
from authserver.plugins.importing import forget
from authserver.testing.live import free_port
from authserver.testing.server import basic
from authserver.web.connections import Dispatcher
from authserver.web.serving import CannotListen, all_bound, server

CHECKOUT = Path(__file__).parents[1]
SECONDS = 60


@contextmanager
def taken() -> Iterator[int]:
    """A loopback port that something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def sentence(call: Callable[[], object]) -> str:
    """With what the process would end, after the first line; its exit status is 1."""
    with pytest.raises(SystemExit) as ended:
        call()
    assert isinstance(ended.value.code, str)
    first, _, rest = ended.value.code.partition("\n  ")
    assert first == "authserver cannot start:"
    assert "\n" not in rest
    return rest


def variables(tmp_path: Path, text: str, **given: str) -> dict[str, str]:
    """What PasteDeploy gives to the server and the application of this INI."""
    path = tmp_path / "some.ini"
    path.write_text(text)
    return {"__file__": str(path), "here": str(tmp_path), "__script__": "pserve", **given}


# ---- [server:main] --------------------------------------------------------------------------------


def test_a_port_in_use_is_one_sentence() -> None:
    with taken() as port:
        said = sentence(lambda: server({"__file__": "/srv/production.ini"}, listen=f"127.0.0.1:{port}"))
    assert said == (
        f"[server:main] of production.ini: 127.0.0.1:{port} is in use, perhaps by a server that is still running; stop "
        "that one, or change the address here, and in authserver.issuer if it names this port"
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"listen": "127.0.0.1:seven"}, "127.0.0.1:seven is not an address to listen on; expected HOST:PORT"),
        ({"port": "seven"}, "invalid literal for int() with base 10: 'seven'"),
        ({"listen": "192.0.2.1:6543"}, "192.0.2.1:6543 is not an address of this machine; change it here"),
        ({"listen": ""}, "listen names no address; expected HOST:PORT"),
        ({"sockets": "3"}, "sockets: no such setting; did you mean unix_socket"),
        ({"thread": "4"}, "thread: no such setting; did you mean threads"),
        ({"zzz": "4"}, "zzz: no such setting; the nearest of "),
        (
            {"trusted_proxy": "*"},
            "trusted_proxy: name your proxies in authserver.trusted_proxies of [app:main] instead, and remove this line",
        ),
        ({"management_listen": "6544:x"}, "6544:x is not an address to listen on; expected HOST:PORT"),
        (
            {"connections_per_address": "many"},
            "connections_per_address: many is not a whole number from 0",
        ),
        ({"request_time_limit": "0"}, "request_time_limit: 0 is not a whole number from 1"),
        (
            {"processes": "9" * 5000},
            "processes: 99999999999999999999 is not a whole number from 0",
        ),
        ({"threads": "0"}, "threads: 0 is not a whole number from 1"),
        ({"listen": "127.0.0.1:70000"}, "70000 is not a port; expected a number up to 65535"),
        ({"listen": "", "port": "70000"}, "70000 is not a port; expected a number up to 65535"),
        ({"management_listen": "[::1]:70000"}, "70000 is not a port; expected a number up to 65535"),
        (
            {"listen": "127.0.0.1:0", "connection_limit": "2000000000"},
            "connection_limit needs 2000000128 open files, and the system allows this process ",
        ),
        ({"listen": "127.0.0.1:0", "unix_socket": "/x"}, "unix_socket may not be set if listen is set"),
    ],
)
def test_a_server_section_that_cannot_be_used_is_one_sentence(settings: dict[str, str], said: str) -> None:
    assert sentence(lambda: server({"__file__": "/srv/my.ini"}, **settings)).startswith(
        f"[server:main] of my.ini: {said}"
    )


def test_the_default_fits_where_a_process_may_open_1024_files() -> None:
    """Many containers and shared machines allow no more; the server starts there as it is shipped."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))\n"
        "from authserver.web.serving import server; server({}, listen='127.0.0.1:0'); print('listens')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS)
    assert (ended.stdout, ended.returncode) == ("listens\n", 0), ended.stderr


def test_sockets_of_systemd_take_the_place_of_listen(tmp_path: Path) -> None:
    """So the address stays open while the service is restarted (sd_listen_fds(3)); a variable for another process counts not."""
    port = free_port()
    code = (
        "import os, socket, sys\n"
        f"descriptor = socket.create_server(('127.0.0.1', {port})).detach()\n"
        "descriptor == 3 or os.dup2(descriptor, 3)\n"
        "os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': sys.argv[1] or str(os.getpid())}\n"
        "from authserver.web.serving import server\n"
        "try: server({}, listen=sys.argv[2])(None)\n"
        "except Exception as error: print(type(error).__name__, 'LISTEN_FDS' in os.environ)"
    )
    for pid, said in (("", "CannotListen False"), ("1", "")):
        # Without the sockets it takes an address of its own, which is in use here.
        done = subprocess.run(
            [sys.executable, "-c", code, pid, f"127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.stdout.strip() == said, done.stderr
        assert bool(done.returncode) == ("is in use" in done.stderr) == (not said)


def test_every_address_is_checked() -> None:
    """The second of two is in use, so the first is given back."""
    with taken() as port:
        first = free_port()
        said = sentence(lambda: server({}, listen=f"127.0.0.1:{first} 127.0.0.1:{port}"))
        assert f"127.0.0.1:{port} is in use" in said
        socket.create_server(("127.0.0.1", first)).close()


def test_every_process_needs_a_port_for_operators() -> None:
    settings = {"listen": "127.0.0.1:0", "management_listen": "127.0.0.1:65535", "processes": "2"}
    assert sentence(lambda: server({"__file__": "/srv/my.ini", "__script__": "pserve"}, **settings)) == (
        "[server:main] of my.ini: management_listen: process 2 would have port 65536; begin with a lower port"
    )


def test_the_address_for_operators_is_checked_too() -> None:
    with taken() as port:
        first = free_port()
        said = sentence(
            lambda: server({}, listen=f"127.0.0.1:{first}", management_listen=f"127.0.0.1:{port}")
        )
        assert f"127.0.0.1:{port} is in use" in said
        socket.create_server(("127.0.0.1", first)).close()


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_localhost_needs_no_ipv6(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As in a container: `localhost` is ::1, too, and the machine has no such address. Alone it must be there."""

    class WithoutIPv6(socket.socket):
        """What the system says without IPv6, at one of the two steps where it may say so."""

        def __init__(self, family: int, *rest: int) -> None:
            if family == socket.AF_INET6 and number == errno.EAFNOSUPPORT:
                raise OSError(number, "")
            super().__init__(family, *rest)

        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(number, "")
            super().bind(address)

    # One for all addresses alone: a connection of another test may get a port as soon as nobody listens there any more.
    port, another, wide = free_port(), free_port(), free_port()
    monkeypatch.setattr("authserver.web.serving.socket.socket", WithoutIPv6)
    wanted = Adjustments(listen=f"[::1]:{port} 127.0.0.1:{port}").listen
    with ExitStack() as opened:
        sockets = all_bound(opened, wanted)
        assert [item.getsockname() for item in sockets] == [("127.0.0.1", port)]
    with ExitStack() as opened:
        sockets = all_bound(opened, Adjustments(listen=f"*:{wide}").listen)
        assert [item.getsockname() for item in sockets] == [("0.0.0.0", wide)]
    for listen in (
        f"[::1]:{port}",
        f"[::1]:{port} 127.0.0.1:{another}",
        f"[::1]:{port} 127.0.0.2:{port}",
    ):
        assert sentence(lambda listen=listen: server({}, listen=listen)).endswith(
            f"[::1]:{port} is not an address of this machine; change it here"
        )


def test_requests_that_wait_for_a_thread_are_told_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """A line for each of them would be most of the log of a busy server."""
    now = [1000.0]
    dispatcher = Dispatcher(clock=lambda: now[0])
    for seconds in (0, 1, 58, 2, 1, 10):
        now[0] += seconds
        dispatcher.add_task(object())
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("4 requests of the last 61 s waited for a thread, up to 4 at once; raise threads")
    assert len(dispatcher.queue) == 6


def test_something_around_the_application_is_one_sentence() -> None:
    """A filter of a `[pipeline:main]` hides which proxies are trusted, and what operators ask."""
    serve = server({"__file__": "/srv/my.ini"}, listen="127.0.0.1:0")
    limit = getattr(sys, "tracebacklimit", None)
    try:
        with pytest.raises(
            CannotListen, match=r"my\.ini: can serve only authserver itself, without a filter around it"
        ):
            serve(lambda environ, start_response: [])
    finally:
        if limit is None:
            del sys.tracebacklimit


# ---- variables of the command line ----------------------------------------------------------------

USES = "[server:main]\nlisten = 127.0.0.1:%(http_port)s\n"


@pytest.mark.parametrize(
    "text",
    [
        USES,
        "[DEFAULT]\nhttp_port = 6543\n" + USES,
        "[server:main]\nget port = http_port\n",
        "[app:main]\nuse = config:other.ini\n",
        "[DEFAULT]\naddress = 127.0.0.1:%(http_port)s\n",
    ],
)
def test_a_variable_that_the_file_uses_is_taken(tmp_path: Path, text: str) -> None:
    assert unused_variables(variables(tmp_path, text, http_port="8080")) == []


def test_a_variable_may_have_any_name(tmp_path: Path) -> None:
    text = USES.replace("http_port", "http.port-of me")
    assert unused_variables(variables(tmp_path, text, **{"http.port-of me": "8080"})) == []


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        (
            "[server:main]\nlisten = 127.0.0.1:6543\n# %(http_port)s\n",
            "http_port",
            "write it where it belongs, such as `listen = 127.0.0.1:%(http_port)s` in [server:main]",
        ),
        (USES, "http_prot", "did you mean http_port"),
        ("[DEFAULT]\nhttp_port = 6543\n[server:main]\nlisten = *:1\n", "http_port", "write it where it belongs"),
    ],
)  # fmt: skip
def test_a_variable_that_would_mean_nothing_stops_the_start(
    tmp_path: Path, text: str, given: str, said: str
) -> None:
    """Also when the server is not waitress, and the application alone sees it."""
    config = variables(tmp_path, text, **{given: "8080"})
    expected = f"{given}: given on the command line, but some.ini has no %({given})s, so it would mean nothing; {said}"
    assert sentence(lambda: server(config, listen="127.0.0.1:0")).startswith(expected)
    assert sentence(lambda: wsgi(config)).startswith(expected)


def test_what_the_file_itself_defines_is_no_variable_of_the_command_line(tmp_path: Path) -> None:
    text = "[DEFAULT]\nhome = /srv\nplace = %(home)s/x\n[app:main]\nuse = egg:authserver\n"
    assert unused_variables(variables(tmp_path, text, home="/srv", place="/srv/x")) == []


# ---- Ctrl-C ---------------------------------------------------------------------------------------


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    """An INI with a plugin that presses Ctrl-C when it is imported, and then hangs."""
    module = f"hangs_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(
        "import signal, threading\n"
        "signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)\n"
        "threading.Event().wait()\n"
    )
    ini = tmp_path / "development.ini"
    text = (CHECKOUT / "development.ini").read_text()
    ini.write_text(text.replace("authserver.plugins =", f"authserver.plugins =\n    {module}:Rule", 1))
    (tmp_path / ".local").mkdir()
    (tmp_path / ".local/secret_keys").write_text(CliRunner().invoke(main, ["keys", "secret"]).output)
    path = list(sys.path)
    yield ini
    sys.path[:] = path


def test_ctrl_c_while_a_plugin_is_imported_is_one_sentence(hanging: Path) -> None:
    said = f"interrupted while the plugin hangs_{hanging.parent.name}:Rule was being imported"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = CliRunner().invoke(main, ["-c", str(hanging), "plugins"])
        assert (done.exit_code, done.output) == (1, f"Error: {said}\n")
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_while_a_server_starts_is_one_sentence(hanging: Path) -> None:
    from paste.deploy import loadapp

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as ended:
            loadapp(f"config:{hanging}")
    finally:
        signal.signal(signal.SIGINT, before)
    said = f"interrupted while the plugin hangs_{hanging.parent.name}:Rule was being imported"
    assert ended.value.code == f"authserver did not start: {said}"


# ---- real processes -------------------------------------------------------------------------------


def test_the_readmes_plugin_works_by_hand_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without PYTHONPATH or a filter of warnings: `pserve` prints five lines, and a second one ends with a sentence."""
    # The tests of the documentation have the same plugin elsewhere.
    monkeypatch.delitem(sys.modules, "read_only", raising=False)
    readme = (CHECKOUT / "README.md").read_text()
    (source,) = re.findall(r"```python\n(.*?class ReadOnly.*?)```", readme, re.DOTALL)
    (lines,) = re.findall(r"```ini\n(authserver.plugins =\n    read_only:ReadOnly.*?)```", readme, re.DOTALL)
    folder, port = tmp_path / "server", free_port()
    folder.mkdir()
    ini = folder / "development.ini"
    text = (CHECKOUT / "development.ini").read_text().replace("localhost:6543", f"localhost:{port}")
    text = text.replace("authserver.plugins =\n", "authserver.plugins =\n    read_only:ReadOnly\n", 1)
    ini.write_text(text.replace("# ---- What may be", f"{lines.splitlines()[-1]}\n# ---- What may be", 1))
    (folder / "read_only.py").write_text(source)
    ignored = ("PYTHONPATH", "PYTHONWARNINGS")
    environment = {name: value for name, value in os.environ.items() if name not in ignored}
    # As the console script does, which is not beside the Python of every test run.
    pserve = [
        sys.executable,
        "-c",
        "import sys; sys.path.remove(''); from pyramid.scripts.pserve import main; main()",
    ]
    done = CliRunner().invoke(main, ["-c", str(ini), "demo"])
    forget(folder)
    assert done.exit_code == 0, done.output
    with (tmp_path / "log").open("w+") as log:
        running = subprocess.Popen([*pserve, ini], cwd="/", env=environment, stdout=log, stderr=log)
        try:
            wait_for(f"http://localhost:{port}/health/live", running)
            again = subprocess.run([*pserve, ini], cwd="/", env=environment, capture_output=True, text=True)
            secret = (folder / ".local/demo-service.secret").read_text().strip()
            asked = urllib.request.Request(
                f"http://localhost:{port}/oauth/token",
                b"grant_type=client_credentials&scope=notes.read+notes.write",
                {"Authorization": basic("demo-service", secret)},
            )
            answer = urllib.request.urlopen(asked).read()
        finally:
            running.terminate()
            running.wait()
        log.seek(0)
        printed = log.read().splitlines()
    assert b'"scope":"notes.read"' in answer
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("authserver cannot start:\n  [server:main] of development.ini: ")
    assert f":{port} is in use" in again.stderr
    assert len(again.stderr.splitlines()) == 2
    shown = [re.sub(r"^[\d-]+ [\d:,]+ ", "", line) for line in printed]
    count = len(appconfig(f"config:{ini}")["authserver.plugins"].split())
    begin = (
        (
            f"INFO    authserver: http://localhost:{port}: development, 2 insecure settings, {count} plugins; "
            "`authserver plugins` shows who decides what"
        ),
        "WARNING authserver: insecure (development only): authserver.issuer",
        "WARNING authserver: insecure (development only): authserver.plugins: playground",
        "Starting server in PID",
        f"INFO    authserver: listening on 127.0.0.1:{port}",
    )
    for line, expected in zip(shown, begin, strict=False):
        assert line.startswith(expected), printed


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("it did not start")


@pytest.mark.parametrize("command", [["--help"], ["keys", "list"]])
def test_a_reader_that_ends_is_no_error(tmp_path: Path, command: list[str]) -> None:
    """`authserver … | head`: what click prints, and what rich prints."""
    ini = tmp_path / "development.ini"
    ini.write_text((CHECKOUT / "development.ini").read_text())
    if command != ["--help"]:
        assert CliRunner().invoke(main, ["-c", str(ini), "demo"]).exit_code == 0
    reading, writing = os.pipe()
    os.close(reading)
    script = "import sys; from authserver.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "-c", str(ini), *command],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
