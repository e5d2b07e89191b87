"""`authserver user`: the people who can sign in."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import closing, nullcontext
from datetime import timedelta
from typing import Any

import click

from authserver.cli.configuration import Configuration, OneSentence, Plugins
from authserver.cli.durations import duration
from authserver.cli.ending import carry_out, confirm, dry_run_option, tell, yes_option
from authserver.cli.options import PAIR
from authserver.cli.paging import after_option, limit_option, tell_next_page
from authserver.cli.printing import json_option, print_json, print_record, print_rows, say, words
from authserver.engine import operators
from authserver.engine.context import Engine
from authserver.engine.ending import Act, Ended, Subject, plan
from authserver.engine.people.account import enable_user, set_password
from authserver.engine.people.attributes import change
from authserver.engine.people.joining import remove
from authserver.engine.people.login import add_user
from authserver.engine.people.password_links import PasswordLink, SentLink, make_link, send_link
from authserver.engine.people.usernames import normalise_username
from authserver.engine.records import NOTHING, User
from authserver.explaining.ends import sentence

_SHOW = "see `authserver user show`"

password_stdin_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of stdin."
)


attribute_option = click.option(
    "--attribute",
    "attributes",
    multiple=True,
    type=PAIR,
    metavar="NAME=VALUE",
    help="An attribute for policies. May be given several times; with the same name, that attribute has several values.",
)


lifetime_option = click.option(
    "--lifetime",
    type=duration,
    help="How long the link works: 60s to 7d; by default authserver.password_link_lifetime, or "
    "authserver.invitation_lifetime for somebody who has no password yet.",
)


mail_option = click.option(
    "--mail",
    "by_mail",
    is_flag=True,
    help="Send the link to the mail address of the person instead of printing it.",
)


@click.group(cls=OneSentence)
def user() -> None:
    """The people who can sign in: their passwords, names, groups and attributes."""


@user.command()
@click.argument("name")
@password_stdin_option
@click.option(
    "--link", "by_link", is_flag=True, help="Print a link with which the person sets the first password."
)
@lifetime_option
@mail_option
@click.option("--display-name", default="", help="The name that pages and applications show.")
@click.option("--group", "groups", multiple=True, help="A group for policies. May be given several times.")
@attribute_option
@json_option
@click.pass_obj
def add(
    configuration: Configuration,
    name: str,
    password_stdin: bool,
    by_link: bool,
    lifetime: timedelta | None,
    by_mail: bool,
    display_name: str,
    groups: tuple[str, ...],
    attributes: tuple[tuple[str, str], ...],
    as_json: bool,
) -> None:
    """Add a person; the password is asked for, read from stdin, or set by the person with a link."""
    if by_link and password_stdin:
        raise click.UsageError(
            "give either --link or --password-stdin: with a link the person chooses the password"
        )
    if (lifetime is not None or by_mail) and not by_link:
        raise click.UsageError("--lifetime and --mail are about a link: give --link, too")
    chosen = None if by_link else read_password(password_stdin)
    with configuration.engine(_plugins_for(by_mail)) as engine:
        added = add_user(
            engine, name, chosen, display_name=display_name, groups=groups, attributes=_by_name(attributes)
        )
        link = _link(engine, added, lifetime, by_mail) if by_link else None
    if link is None:
        _print_user(added, as_json=as_json)
    elif as_json:
        print_json(operators.user(added) | _described_link(link))
    else:
        _print_user(added, as_json=False)
        say()
        _print_link(link)


@user.command()
@click.argument("name")
@click.option("--display-name", help="The name that pages and applications show.")
@click.option(
    "--group", "groups", multiple=True, help="These groups and no others. May be given several times."
)
@click.option("--add-group", "added", multiple=True, metavar="GROUP", help="May be given several times.")
@click.option("--remove-group", "removed", multiple=True, metavar="GROUP", help="May be given several times.")
@attribute_option
@click.option("--remove-attribute", "gone", multiple=True, metavar="NAME", help="May be given several times.")
@json_option
@click.pass_obj
def edit(
    configuration: Configuration,
    name: str,
    display_name: str | None,
    groups: tuple[str, ...],
    added: tuple[str, ...],
    removed: tuple[str, ...],
    attributes: tuple[tuple[str, str], ...],
    gone: tuple[str, ...],
    as_json: bool,
) -> None:
    """Change the display name, groups or attributes of a person; without an option they stay the same.

    Policies see the change from the next request on, also when an application refreshes its tokens. The next sign-in
    replaces them if a sign-in plugin gives groups or attributes.
    """
    if display_name is None and not (groups or added or removed or attributes or gone):
        raise click.UsageError("nothing to change: give --display-name, a --group or an --attribute")
    if groups and (added or removed):
        raise click.UsageError("--group names all groups: give it alone, or --add-group and --remove-group")
    if both := (set(added) & set(removed)) | ({key for key, _ in attributes} & set(gone)):
        raise click.UsageError(f"{', '.join(sorted(both))} cannot be both given and removed")
    with configuration.engine(Plugins.OBSERVE) as engine:
        found = find(engine, name)
        if missing := [group for group in removed if group not in found.groups]:
            raise click.ClickException(f"{found.username} is not in {', '.join(missing)}: {_SHOW}")
        if missing := [key for key in gone if key not in found.attributes]:
            raise click.ClickException(f"{found.username} has no attribute {', '.join(missing)}: {_SHOW}")
        kept = {key: values for key, values in found.attributes.items() if key not in gone}
        changed = change(
            engine,
            found,
            display_name=display_name,
            groups=groups or (set(found.groups) | set(added)) - set(removed),
            attributes={**kept, **_by_name(attributes)},
        )
    _print_user(changed, as_json=as_json)


@user.command()
@click.argument("name")
@json_option
@click.pass_obj
def show(configuration: Configuration, name: str, as_json: bool) -> None:
    """Show a person, with groups and attributes, and how many sessions, live grants and remembered consents there are.

    `identities` are the accounts at other servers through which the person signs in.
    """
    with configuration.engine(Plugins.UNUSED) as engine:
        found = find(engine, name)
        identities = engine.stores.identities.of_user(found.user_id)
        theirs = sum(plan(lambda: nullcontext(engine), Act(subject=Subject.user(found))), Ended())
    counts = {"sessions": theirs.sessions, "grants": theirs.grants, "consents": theirs.consents}
    if as_json:
        joined = [operators.identity(each) for each in identities]
        print_json(operators.user(found) | counts | {"identities": joined})
    else:
        labels = [
            f"{each.issuer} {each.subject}{f' ({each.label})' if each.label else ''}" for each in identities
        ]
        _print_user(found, {**counts, "identities": labels}, as_json=False)


@user.command("remove-identity")
@click.argument("name")
@click.argument("issuer")
@click.argument("subject")
@json_option
@click.pass_obj
def remove_identity(
    configuration: Configuration, name: str, issuer: str, subject: str, as_json: bool
) -> None:
    """Remove the identity of a person at another server: they cannot sign in through it any more.

    ISSUER and SUBJECT are those that `authserver user show` prints. The sessions that came through that server end, and
    the grants that the person gave in them.
    """
    with configuration.engine(Plugins.OBSERVE) as engine:
        found = find(engine, name)
        if not remove(engine, found, issuer, subject):
            raise click.ClickException(f"{found.username} has no such identity; {_SHOW}")
    if as_json:
        print_json({"username": found.username, "issuer": issuer, "subject": subject})
    else:
        say(f"{words(found.username)} cannot sign in through {words(issuer)} any more.")


@user.command("list")
@click.option(
    "--prefix", default="", metavar="TEXT", help="Only those whose user name begins with this text."
)
@limit_option("people")
@after_option("NAME", "this user name")
@json_option
@click.pass_obj
def list_users(configuration: Configuration, prefix: str, limit: int, after: str, as_json: bool) -> None:
    """List people by user name, one page at a time."""
    with configuration.engine(Plugins.UNUSED) as engine:
        begins = normalise_username(prefix) if prefix else ""
        # One more than is shown tells whether there is another page.
        found = engine.stores.users.page(after=after, prefix=begins, limit=limit + 1)
    rows = [operators.user(item) for item in found[:limit]]
    if as_json:
        print_json(rows)
    else:
        rows = [row | {"groups": ", ".join(row["groups"])} for row in rows]
        columns = ("username", "display_name", "user_id", "groups", "created_at", "disabled_at")
        nobody = "There are no users; add one with `authserver user add NAME`."
        print_rows(rows, columns, empty="There are no more users." if after or prefix else nobody)
    if len(found) > limit:
        last = found[limit - 1].username
        tell_next_page(
            configuration, [("--prefix", prefix or None)], limit=limit, after=last, as_json=as_json
        )


@user.command()
@click.argument("name")
@dry_run_option
@yes_option
@json_option
@click.pass_obj
def disable(configuration: Configuration, name: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Disable a person: from the next request on they cannot sign in, and their sessions and grants have ended."""
    _end(configuration, name, for_good=True, dry_run=dry_run, yes=yes, as_json=as_json)


@user.command()
@click.argument("name")
@json_option
@click.pass_obj
def enable(configuration: Configuration, name: str, as_json: bool) -> None:
    """Let a disabled person sign in again, with the same password.

    Their earlier sessions, grants and remembered consents stay ended.
    """
    with configuration.engine(Plugins.OBSERVE) as engine:
        found = find(engine, name)
        ended = enable_user(engine, found)
        if ended is None:
            raise click.ClickException(f"{found.username} is not disabled; {_SHOW}")
    print_ended(f"{words(found.username)} can sign in again", found, ended, as_json=as_json)


@user.command()
@click.argument("name")
@password_stdin_option
@yes_option
@json_option
@click.pass_obj
def password(configuration: Configuration, name: str, password_stdin: bool, yes: bool, as_json: bool) -> None:
    """Give a person another password; it is asked for, or read from stdin.

    All their sessions, grants and remembered consents end.
    """
    with configuration.engine(Plugins.UNUSED) as engine:
        # First, so that nobody types a password for a user who does not exist.
        found = find(engine, name)
        would_end = sum(plan(lambda: nullcontext(engine), Act(subject=Subject.user(found))), Ended())
    confirm(f"Give {words(found.username)} another password? {sentence(would_end, dry_run=True)}", yes=yes)
    chosen = read_password(password_stdin)
    with configuration.engine(Plugins.OBSERVE) as engine:
        ended = set_password(engine, found, chosen)
    print_ended(f"{words(found.username)} has another password", found, ended, as_json=as_json)


@user.command("reset-password")
@click.argument("name")
@lifetime_option
@mail_option
@json_option
@click.pass_obj
def reset_password(
    configuration: Configuration, name: str, lifetime: timedelta | None, by_mail: bool, as_json: bool
) -> None:
    """Make a link with which a person sets a password, because they forgot theirs or have none yet.

    It works once. A previous link stops working; the present password works until the link is used. Then all sessions,
    grants and remembered consents of the person end.
    """
    with configuration.engine(_plugins_for(by_mail)) as engine:
        link = _link(engine, find(engine, name), lifetime, by_mail)
    if as_json:
        print_json({"username": link.user.username} | _described_link(link))
    else:
        _print_link(link)


@user.command("sign-out")
@click.argument("name")
@dry_run_option
@yes_option
@json_option
@click.pass_obj
def sign_out(configuration: Configuration, name: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Sign a person out everywhere: all their sessions, grants and remembered consents end."""
    _end(configuration, name, for_good=False, dry_run=dry_run, yes=yes, as_json=as_json)


def _end(
    configuration: Configuration, name: str, *, for_good: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    application = configuration.application(Plugins.OBSERVE)
    with closing(application):
        application.check_database()
        with application.begin() as engine:
            found = find(engine, name)
        act, who = Act(subject=Subject.user(found), for_good=for_good), words(found.username)
        ask = f"{'Disable' if for_good else 'Sign out'} {who}?"
        ended = carry_out(application, act, dry_run=dry_run, yes=yes, quiet=as_json, ask=ask)
    if for_good and not found.is_enabled and not ended:
        raise click.ClickException(f"{found.username} is disabled already; {_SHOW}")
    done = f"{who} is {'disabled' if for_good else 'signed out'}."
    tell(act, ended, done="" if dry_run else done, dry_run=dry_run, as_json=as_json)


def find(engine: Engine, name: str) -> User:
    """The user of this name.

    Raises:
        BadUsername: it cannot be a user name.
        click.ClickException: there is no such user.
    """
    found = engine.stores.users.find_by_name(normalise_username(name))
    if found is None:
        raise click.ClickException(f"{name}: no such user; see `authserver user list`")
    return found


def read_password(from_stdin: bool) -> str:
    """A password, typed twice or from the first line of stdin. Raises click.UsageError without a terminal."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for a password: give it with --password-stdin")
    typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return typed


def print_ended(done: str, user: User, ended: Ended, *, as_json: bool) -> None:
    """Print what was done, and what ended with it."""
    tell(Act(subject=Subject.user(user)), ended, done=f"{done}.", as_json=as_json)


def _plugins_for(by_mail: bool) -> Plugins:
    """Why the plugins are needed: only for a mail all of them must be loaded."""
    return Plugins.DECIDE if by_mail else Plugins.OBSERVE


def _link(engine: Engine, person: User, lifetime: timedelta | None, by_mail: bool) -> PasswordLink | SentLink:
    return send_link(engine, person, lifetime) if by_mail else make_link(engine, person, lifetime)


def _print_link(link: PasswordLink | SentLink) -> None:
    name, until = words(link.user.username), words(link.expires_at)
    sets = f"{name} sets {'a new' if link.user.password_hash else 'the first'} password, once, until {until}"
    if isinstance(link, SentLink):
        say(f"A mail to {words(link.sent_to)} has the link with which {sets}.")
    else:
        say(
            f"With this link {sets}. Whoever has it can do so: send it to nobody else. It is not shown again."
        )
        say(f"\n  {link.address}")


def _described_link(link: PasswordLink | SentLink) -> dict[str, Any]:
    told = {"sent_to": link.sent_to} if isinstance(link, SentLink) else {"link": link.address}
    return {**told, "expires_at": link.expires_at}


def _print_user(user: User, counts: Mapping[str, Any] = NOTHING, *, as_json: bool) -> None:
    found = operators.user(user) | dict(counts)
    if as_json:
        print_json(found)
    else:
        values = [f"{name} = {value}" for name, values in user.attributes.items() for value in values]
        print_record(found | {"attributes": values})


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The values of each attribute, by name."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found
