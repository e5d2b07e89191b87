"""How the consent page lists scopes: few as they are, many in groups and partly folded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.settings import SettingsError
from authserver.testing.server import Server
from authserver.testing.stories import register, signed_in
from authserver.web.scope_list import IN_SIGHT, Group, grouped, is_in_group, prefix_of

MakeServer = Callable[..., Server]

NOTES = ("notes.read", "notes.write", "notes.share")
MAIL = ("mail.read", "mail.send", "mail.delete", "mail.export")
NAMES = ("profile", *NOTES, *MAIL, "files.read", "files.write")


def listed(*names: str, ticked: tuple[str, ...] | None = None, **headings: str) -> list[tuple[str, int, int]]:
    """Heading, number in sight and number folded, of each group."""
    groups = grouped([(name, "Words") for name in names], ticked=ticked, headings=headings)
    return [(group.heading, len(group.shown), len(group.folded)) for group in groups]


@pytest.mark.parametrize(
    ("scope", "prefix"),
    [
        ("profile", "profile"),
        ("notes.read", "notes"),
        ("notes:write.all", "notes"),
        ("https://graph.example/Mail.Read", "https://graph.example/Mail"),
        ("api://app/access", "api://app/access"),
        (".odd", ""),
        ("/", "/"),
    ],
)
def test_a_group_is_the_first_part_of_the_name(scope: str, prefix: str) -> None:
    assert prefix_of(scope) == prefix
    assert is_in_group(scope, prefix) or not prefix


def test_a_prefix_ends_where_a_part_of_the_name_ends() -> None:
    assert not is_in_group("notesbook.read", "notes")
    assert is_in_group("https://graph.example/Mail.Read", "https://graph.example/")


@pytest.mark.parametrize("count", [1, IN_SIGHT])
def test_a_few_scopes_are_one_list_as_they_were_asked_for(count: int) -> None:
    assert listed(*NAMES[:count], notes="Notes") == [("", count, 0)]


def test_many_scopes_are_in_groups_and_only_whole_groups_are_in_sight() -> None:
    """Those without a group come first; a named group has its heading even with a single scope."""
    assert listed(*NAMES) == [("", 1, 0), ("notes", 3, 0), ("mail", 4, 0), ("files", 0, 2)]
    assert listed(*NAMES, profile="About you")[0] == ("About you", 1, 0)
    assert listed("a", "b", *MAIL, *NOTES, mail="Your mail") == [
        ("", 2, 0),
        ("Your mail", 4, 0),
        ("notes", 0, 3),
    ]


def test_the_longest_prefix_that_fits_names_the_group() -> None:
    names = ("notes.read", "notes.admin.read", "notes.admin.write", *MAIL, *NAMES[-2:])
    found = listed(*names, **{"notes": "Notes", "notes.admin": "Notes of others"})
    assert [heading for heading, _shown, _folded in found] == ["Notes", "Notes of others", "mail", "files"]


@pytest.mark.parametrize("names", [[f"s{n}" for n in range(300)], [f"s.{n}" for n in range(300)]])
def test_of_a_large_first_group_the_beginning_is_in_sight(names: list[str]) -> None:
    assert listed(*names)[0][1:] == (IN_SIGHT, 300 - IN_SIGHT)


@given(
    st.lists(st.sampled_from([f"{a}{b}{c}" for a in "abcde" for b in "./:" for c in "abcdefg"]), unique=True)
)
def test_every_scope_is_listed_once(names: list[str]) -> None:
    groups = grouped([(name, "") for name in names], headings={"a": "A"})
    found = [scope for group in groups for scope in (*group.shown, *group.folded)]
    assert sorted(scope.name for scope in found) == sorted(names)
    assert [names[scope.index] for scope in found] == [scope.name for scope in found]
    assert not names or groups[0].shown


def test_a_fold_is_open_when_only_some_of_it_is_ticked() -> None:
    """What the summary cannot say is in sight."""

    def folds(ticked: tuple[str, ...] | None) -> list[bool]:
        groups = grouped([(name, "") for name in NAMES], ticked=ticked, headings={})
        return [group.is_open for group in groups if group.folded]

    assert (folds(None), folds(()), folds(("files.read",))) == ([False], [False], [True])
    assert not Group().is_open


# ---- on the page ------------------------------------------------------------------------------------


@pytest.fixture
def many(make_server: MakeServer) -> Server:
    """A server with the scopes above."""
    server = make_server(
        {
            "authserver.scopes": "\n".join(f"{name} = May {name}" for name in NAMES),
            "authserver.hidden_scopes": None,
            "authserver.scope_groups": "mail = Your mail",
            "authserver.resource_names": "https://API.example = The API",
            "authserver.plugin.registration_open.scopes": " ".join(NAMES),
            "authserver.plugin.resources_listed.resources": "https://api.example/ = *",
        }
    )
    server.add_user("ann")
    return server


def test_ticks_all_and_none_and_what_was_ticked_come_back(many: Server) -> None:
    """E-08, E-14: without a script; a page that comes back is ticked as it was sent, and so is what is granted."""
    client = register(many, scope=" ".join(NAMES))
    page = signed_in(many).get(many.authorization_url(client, scope=" ".join(NAMES)))

    def ticked() -> list[str]:
        return [
            box["value"]
            for box in page.html.find_all("input", attrs={"name": "scope"})
            if box.has_attr("checked")
        ]

    assert ticked() == list(NAMES)
    text = page.html.get_text(" ", strip=True)
    for words in (
        "asks for 10 permissions",
        "Your mail",
        "2 permissions, all ticked",
        "The API https://api.example/",
    ):
        assert words in text
    page = page.click("Tick none")
    assert ticked() == []
    # Whoever changes the address does not leave the page.
    page = page.goto(f"{page.request.url}&ticks=all")
    assert ticked() == []
    page = page.click("Tick all")
    assert ticked() == list(NAMES)
    form = page.forms["consent"]
    for box in form.fields["scope"]:
        box.checked = box._value in ("profile", "files.read")
    page = form.submit("answer", value="allow", status=400)
    assert ticked() == ["profile", "files.read"]
    assert page.html.find("details").has_attr("open")
    many.consent(page, "allow", scopes=ticked())
    assert many.rows("grants")[0]["scopes"] == "profile files.read"
    # The account page calls a resource as the consent page did.
    account = page.test_app.get(many.path("/account/apps"))
    assert "The API https://api.example/" in account.html.get_text(" ", strip=True)


@pytest.mark.parametrize(
    ("setting", "text", "problem"),
    [
        (
            "scope_groups",
            "file = Files",
            "authserver.scope_groups: file: no scope begins with it; did you mean files",
        ),
        (
            "resource_names",
            "notes = Notes",
            "authserver.resource_names: notes: resource must be an absolute URI",
        ),
        (
            "resource_names",
            "https://a.example = A\nhttps://a.example/ = B",
            "two lines name https://a.example/",
        ),
    ],
)
def test_a_name_for_nothing_stops_the_start(
    make_server: MakeServer, setting: str, text: str, problem: str
) -> None:
    """T142: a misspelt prefix or resource is told, not ignored."""
    with pytest.raises(SettingsError, match="authserver") as raised:
        make_server({f"authserver.{setting}": text})
    assert any(problem in line for line in raised.value.problems), raised.value.problems
