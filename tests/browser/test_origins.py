"""Scripts of other origins, in a browser that keeps from them what they may not read."""

from __future__ import annotations

from playwright.sync_api import Page

from authserver.testing.server import Server

ASK = """async (url) => {
    try {
        const answer = await fetch(url, {
            method: "POST",
            headers: {"Authorization": "Basic bm9ib2R5Ondyb25n", "MCP-Protocol-Version": "2025-11-25"},
            body: new URLSearchParams({grant_type: "client_credentials"}),
        });
        return {status: answer.status, challenge: answer.headers.get("WWW-Authenticate"), body: await answer.json()};
    } catch (error) {
        return {hidden: error.name};
    }
}"""


def test_a_page_of_a_listed_origin_reads_errors(page: Page, server: Server, watch) -> None:
    """Q-01, Q-03, Q-04, T085: after a preflight, and as JSON; a page of another origin reads nothing."""
    watch.allow("status of 401|blocked by CORS policy|net::ERR_FAILED")
    page.goto("https://listed.example/")
    told = page.evaluate(ASK, f"{server.issuer}/oauth/token")
    assert (told["status"], told["body"]["error"]) == (401, "invalid_client")
    assert told["challenge"].startswith("Basic ")
    page.goto("https://unlisted.example/")
    assert page.evaluate(ASK, f"{server.issuer}/oauth/token") == {"hidden": "TypeError"}
    assert "blocked by CORS policy" in str(watch.complaints)
