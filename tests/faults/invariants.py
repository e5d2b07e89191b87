"""What must be true after every fault: the ledger of the load clients against the tables and the chain of events.

What was acknowledged has happened, all of it; what was not may have happened, all of it or nothing. The names are those of
the table in `docs/faults.rst`.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import sqlalchemy as sa

from authserver.engine import event_proof
from authserver.engine.crypto import digests
from authserver.engine.event_seals import Sealer
from authserver.engine.event_stream import SETTLED, EventStream
from authserver.engine.people.login import SESSION_KIND
from authserver.engine.records import TokenKind
from authserver.event_readers import Reading
from authserver.storage.database import Database
from authserver.testing.server import Server
from tests.faults.ledger import LOST, Ledger, Step

REVOKED_BY = {
    "replayed-code": "code-replayed",
    "replayed-token": "refresh-token-reused",
    "revoke": "revoked-by-client",
}
Row = Mapping[str, Any]


class Disturbance(NamedTuple):
    """A time in which right requests may be refused, and so may those that continue later what was begun by its end.

    Attributes:
        begin, end: seconds of the monotonic clock.
    """

    begin: float
    end: float


def assert_hold(server: Server, ledger: Ledger, disturbances: Sequence[Disturbance] = ()) -> Counter[str]:
    """Raises AssertionError with every invariant that is broken; else what was looked at."""
    # The fault may have cut these connections, too.
    server.application.storage.engine.dispose()
    storage = _patient(server)
    try:
        check = Check(server, ledger, disturbances, storage=storage)
        broken = list(check.broken())
    finally:
        storage.close()
    assert not broken, "\n".join(broken[:40])
    return check.seen


class Check:
    """One look at everything, when no request is under way.

    Args:
        server: on the database of the processes; their load has ended.
        ledger: what the clients did and saw.
        disturbances: what was under way during one of these is excused.
        storage: the same database, where a statement may take longer.
    """

    def __init__(
        self,
        server: Server,
        ledger: Ledger,
        disturbances: Sequence[Disturbance] = (),
        *,
        storage: Database | None = None,
    ) -> None:
        self.server, self.ledger, self.seen = server, ledger, Counter[str]()
        self.storage = storage or server.application.storage
        self.disturbances = disturbances
        self.tokens = {(row["kind"], bytes(row["digest"])): row for row in self._rows("tokens")}
        self.grants = {row["grant_id"]: row for row in self._rows("grants")}
        self.clients = {row["client_id"]: row for row in self._rows("clients")}
        self.of_grant: dict[str, list[Row]] = defaultdict(list)
        for row in self.tokens.values():
            self.of_grant[row["grant_id"]].append(row)
        self.events: dict[str, list[Row]] = defaultdict(list)
        # After half an hour there is a million of them: their decisions would fill the memory.
        for row in self._rows("events", "grant_id", "type", "details"):
            self.events[row["grant_id"] or ""].append(row)

    def broken(self) -> Iterator[str]:
        """A line for each break of an invariant, which begins with its name."""
        for name, check in (
            ("I1", self.codes_are_spent_once),
            ("I2", self.families_have_one_head),
            ("I3", self.answers_are_stored),
            ("I3", self.rows_have_their_events),
            ("I4", self.what_ended_stays_ended),
            ("I5", self.what_was_used_stays_used),
            ("I6", self.nothing_exceeds_what_was_agreed),
            ("I7", self.failures_are_counted),
            ("I8", self.events_are_a_whole_chain),
            ("I9", self.keys_are_published),
            ("I10", self.database_is_sound),
            ("answers", self.answers_were_expected),
        ):
            for line in check():
                yield f"{name}: {line}"

    def codes_are_spent_once(self) -> Iterator[str]:
        for grant_id, rows in self.of_grant.items():
            codes = [row for row in rows if row["kind"] == TokenKind.CODE]
            redeemed = self._issued(grant_id, "authorization_code")
            self.seen["codes"] += len(codes)
            if len(codes) > 1 or len(redeemed) > 1:
                yield f"grant {grant_id}: {len(codes)} codes, {len(redeemed)} of them redeemed"
            for code in codes:
                if (code["claimed_at"] is not None) != bool(redeemed) and code["failures"] == 0:
                    yield f"grant {grant_id}: code claimed {code['claimed_at']}, {len(redeemed)} events"

    def families_have_one_head(self) -> Iterator[str]:
        for grant_id, rows in self.of_grant.items():
            live = [row for row in rows if row["kind"] == TokenKind.REFRESH and row["claimed_at"] is None]
            if len(live) > 1:
                yield f"grant {grant_id}: {len(live)} refresh tokens that nobody used"

    def answers_are_stored(self) -> Iterator[str]:
        acknowledged = Counter[str]()
        for step in self.ledger.steps("redeem", "refresh"):
            if step.status != 200:
                continue
            self.seen["answers with tokens"] += 1
            row = self._row(TokenKind.REFRESH, step.answer["refresh_token"])
            if row is None:
                yield f"step {step.number}: its refresh token is not stored"
                continue
            access = step.answer["access_token"]
            if access.startswith(digests.ACCESS):
                kept = self._row(TokenKind.ACCESS, access)
                if kept is None or kept["grant_id"] != row["grant_id"]:
                    yield f"step {step.number}: its access token is not stored"
            elif not self.server.claims(access)["jti"].startswith(row["grant_id"]):
                yield f"step {step.number}: its access token is not of the grant"
            acknowledged[row["grant_id"]] += 1
        for grant_id, count in acknowledged.items():
            if len(self._issued(grant_id)) < count:
                yield f"grant {grant_id}: {count} answers, {len(self._issued(grant_id))} events"
        alone = sum(step.status == 200 for step in self.ledger.steps("itself"))
        told = sum(len(self._issued(grant_id, "client_credentials")) for grant_id in self.events)
        if told < alone:
            yield f"{alone} answers to client_credentials, {told} events"

    def rows_have_their_events(self) -> Iterator[str]:
        for grant_id in self.grants:
            given = sum(row["kind"] == TokenKind.REFRESH for row in self.of_grant[grant_id])
            events = [_details(row) for row in self._issued(grant_id)]
            # A retry gives the same refresh token again.
            told = sum(details["refresh_token"] and not details["retry"] for details in events)
            if given != told:
                yield f"grant {grant_id}: {given} refresh tokens, {told} events"
            if not any(row["type"] == "code.issued" for row in self.events[grant_id]):
                yield f"grant {grant_id}: no event says that its code was issued"

    def what_ended_stays_ended(self) -> Iterator[str]:
        for step in self.ledger.steps(*REVOKED_BY):
            if not (step.status == 200 if step.name == "revoke" else step.status == 400):
                continue
            kind = TokenKind.CODE if step.name == "replayed-code" else TokenKind.REFRESH
            row = self._row(kind, step.sent["code" if kind is TokenKind.CODE else "token"])
            grant = self.grants.get(row["grant_id"]) if row else None
            self.seen["ends"] += 1
            if grant is None or grant["revoked_at"] is None:
                yield f"step {step.number}: {step.name} was acknowledged, and the grant goes on"
        sessions = {bytes(row["digest"]) for row in self._rows("sessions", "digest")}
        for step in self.ledger.steps("sign-out"):
            if step.status != 303:
                continue
            self.seen["ends"] += 1
            values = (pair.partition("=")[2] for pair in step.sent["cookie"].split("; "))
            if sessions & {digests.digest(SESSION_KIND, value) for value in values}:
                yield f"step {step.number}: the session goes on that was ended"

    def what_was_used_stays_used(self) -> Iterator[str]:
        for step in self.ledger.steps("redeem", "refresh"):
            if step.status != 200:
                continue
            kind = TokenKind.CODE if step.name == "redeem" else TokenKind.REFRESH
            row = self._row(kind, step.sent["code" if kind is TokenKind.CODE else "token"])
            if row is None or row["claimed_at"] is None:
                yield f"step {step.number}: what it used can be used again"

    def nothing_exceeds_what_was_agreed(self) -> Iterator[str]:
        for grant_id, grant in self.grants.items():
            client = self.clients[grant["client_id"]]
            if not _words(grant, "scopes") <= _words(client, "scopes"):
                yield f"grant {grant_id}: scopes that its client does not have"
            for row in self.of_grant[grant_id]:
                for member in ("scopes", "resources"):
                    if not _words(row, member) <= _words(grant, member):
                        yield f"grant {grant_id}: a token has {member} that were not granted"

    def failures_are_counted(self) -> Iterator[str]:
        wrong = Counter(step.sent["code"] for step in self.ledger.steps("wrong-proof") if step.status == 400)
        for code, count in wrong.items():
            row = self._row(TokenKind.CODE, code)
            self.seen["wrong proofs"] += count
            if row is None or row["failures"] < count:
                yield f"code of {row and row['grant_id']}: {count} wrong proofs, {row and row['failures']} counted"

    def events_are_a_whole_chain(self) -> Iterator[str]:
        storage, ring = self.storage, self.server.application.parts.ring
        reading = Reading(storage, Sealer(ring, lambda: datetime.now(UTC)))
        # Nobody writes any more: what a killed transaction left out need not be waited for.
        reading._stream = EventStream(partial(next, itertools.count(0, 2 * SETTLED)))
        idle = 0
        while idle < 2:
            # The first that finds nothing may have stopped at such a gap.
            idle = 0 if reading.work() else idle + 1
        proof = event_proof.verify(storage, ring, now=datetime.now(UTC))
        self.seen["events"] += proof.events
        if proof.whole is not True or proof.unsealed:
            yield f"{proof.finding}, {proof.unsealed} not sealed"

    def keys_are_published(self) -> Iterator[str]:
        published = {key["kid"] for key in self.server.http.get("/oauth/jwks").json["keys"]}
        stored = {row["kid"] for row in self._rows("signing_keys", "kid")}
        if not published or not published <= stored:
            yield f"{published - stored} are published and not stored"
        for step in self.ledger.steps("itself"):
            if step.status == 200:
                self.server.claims(step.answer["access_token"])

    def database_is_sound(self) -> Iterator[str]:
        engine = self.storage.engine
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                for pragma, sound in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
                    found = connection.execute(sa.text(f"PRAGMA {pragma}")).all()
                    if found != sound:
                        yield f"{pragma}: {found[:3]}"
                return
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS amcheck"))
            for table in ("tokens", "grants", "events", "kept", "sessions"):
                found = connection.execute(sa.text(f"SELECT * FROM verify_heapam('{table}')")).all()
                if found:
                    yield f"{table}: {found[:3]}"
            connection.execute(
                sa.text(
                    "SELECT bt_index_check(indexrelid, true) FROM pg_index JOIN pg_class ON oid = indexrelid"
                    " JOIN pg_am ON relam = pg_am.oid WHERE amname = 'btree' AND relnamespace = 'public'::regnamespace"
                )
            )

    def answers_were_expected(self) -> Iterator[str]:
        """No 500, no traceback; and nobody is refused who did nothing wrong."""
        before: dict[int, list[Step]] = defaultdict(list)
        for step in self.ledger.steps():
            self.seen["requests"] += 1
            earlier = before[step.story]
            # After an outcome that is not known, asking again may look like a replay.
            begun = earlier[0].began if earlier else step.began
            excused = any(not one.is_known for one in earlier) or any(
                begun <= disturbance.end and disturbance.begin <= step.ended
                for disturbance in self.disturbances
            )
            if step.status not in (LOST, 200, 201, 302, 303, 503) and not (
                excused or step.name in ("wrong-proof", "replayed-code", "replayed-token")
            ):
                yield f"step {step.number}: {step.name} got {step.status} {step.answer}"
            if step.status == 500:
                yield f"step {step.number}: {step.name} got 500"
            if step.status == 503 and "retry-after" not in step.headers:
                yield f"step {step.number}: {step.name} got 503 without Retry-After"
            if (
                step.name == "introspect"
                and step.status == 200
                and not (excused or step.answer.get("active"))
            ):
                yield f"step {step.number}: a token that nobody ended is not active"
            earlier.append(step)

    # ---- the tables ----

    def _rows(self, table: str, *columns: str) -> list[Row]:
        selected = ", ".join(columns) or "*"
        with self.storage.engine.connect() as connection:
            rows = connection.execute(sa.text(f"SELECT {selected} FROM {table}"))
            return list(map(dict, rows.mappings()))

    def _row(self, kind: TokenKind, text: str) -> Row | None:
        return self.tokens.get((kind, digests.digest(kind, text)))

    def _issued(self, grant_id: str, grant_type: str | None = None) -> Sequence[Row]:
        return [
            row
            for row in self.events[grant_id]
            if row["type"] == "token.issued" and grant_type in (None, _details(row).get("grant_type"))
        ]


def _patient(server: Server) -> Database:
    """The database of a server; a look at a million rows takes longer than a statement of a request may."""
    url = server.application.storage.engine.url
    if url.get_backend_name() == "postgresql":
        url = url.update_query_dict({"options": "-c statement_timeout=0"})
    return Database(url.render_as_string(hide_password=False))


def _details(event: Row) -> Row:
    details = event["details"]
    found: Row = json.loads(details) if isinstance(details, str | bytes) else details
    return found


def _words(row: Row, member: str) -> set[str]:
    value = row[member]
    return set(value.split()) if isinstance(value, str) else set(value or ())
