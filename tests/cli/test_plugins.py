"""`authserver plugins`."""

from __future__ import annotations

import json


def hooks(run) -> dict[str, dict]:
    result = run("plugins", "--json")
    assert result.exit_code == 0, result.output
    return {row["hook"]: row for row in json.loads(result.stdout)}


def test_each_decision_says_who_is_asked_in_which_order_and_what_silence_means(run, ini) -> None:
    before = hooks(run)
    assert before["redirect_uri_decision"]["plugins"] == ["redirect_exact", "redirect_loopback"]
    assert before["consent_decision"]["silence"] == "the user is asked"
    text = (
        ini.read_text()
        .replace("    redirect_exact\n", "")
        .replace("    redirect_loopback\n", "    redirect_loopback\n    redirect_exact\n")
    )
    ini.write_text(text)
    assert hooks(run)["redirect_uri_decision"]["plugins"] == ["redirect_loopback", "redirect_exact"]


def test_a_decision_that_nobody_serves_says_so(run, ini) -> None:
    ini.write_text(
        ini.read_text()
        .replace("    redirect_exact\n", "")
        .replace("    redirect_loopback\n", "")
        .replace("authserver.plugin.redirect_loopback.hosts", "# authserver.plugin.redirect_loopback.hosts")
    )
    assert hooks(run)["redirect_uri_decision"]["plugins"] == []
    table = run("plugins").stdout
    (line,) = [line for line in table.splitlines() if line.startswith("redirect_uri_decision")]
    assert "nobody" in line and "refused with an error page" in line
