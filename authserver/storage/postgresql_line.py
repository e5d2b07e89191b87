"""Prepared statements on PostgreSQL: several in one round trip, in the protocol's own pipeline and binary formats.

It uses the driver's own wrapper of libpq (`psycopg.pq`) without the driver's cursors, whose work in Python takes
several times as long as a look-up by key takes in PostgreSQL. All other code uses the driver's connection, which is
idle and in its usual mode after each `run`.

In a pipeline the server skips all statements after one that failed. Therefore a COMMIT can be sent together with the
writes before it: it runs only if all of them have succeeded.
"""

from __future__ import annotations

import re
import select
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
from psycopg import errors
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.waiting import Ready, Wait
from sqlalchemy import JSON, Boolean, DateTime, Enum, Integer, LargeBinary, String
from sqlalchemy.engine import Dialect
from sqlalchemy.types import BigInteger, TypeDecorator, TypeEngine

from authserver.storage.columns import UtcDateTime, encode_json
from authserver.storage.prepared import NO_ANSWER, Answer, Prepared, Recalled, Remembered, Row, Step, Written

_PARAMETER = re.compile(r"%\((\w+)\)s")
# PostgreSQL counts time in microseconds from here.
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NOT_PREPARED = b"26000"
# How many answers a connection remembers, and for how many seconds. That time is much shorter than PostgreSQL needs
# before a transaction number can occur again.
_REMEMBERED = 256
_REMEMBERED_SECONDS = 600
# The most bytes of one answer, because strangers can register clients of the largest allowed size, and have them
# remembered.
_REMEMBERED_BYTES = 8_192
_FAILED = frozenset({ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE})

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]


def _encode_time(value: datetime) -> bytes:
    return ((value - _EPOCH) // _MICROSECOND).to_bytes(8, "big", signed=True)


def _decode_time(value: bytes) -> datetime:
    return _EPOCH + timedelta(microseconds=int.from_bytes(value, "big", signed=True))


def _decode_integer(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


# Version 1 of the format of JSONB is its text.
def _encode_json(value: Any) -> bytes:
    return b"\x01" + encode_json(value)


def _decode_json(value: bytes) -> Any:
    return msgspec.json.decode(value[1:])


# Types of SQLAlchemy, special ones first: the object id of PostgreSQL's type, and its encoder and decoder.
_FORMATS: Sequence[tuple[type[TypeEngine[Any]], int, Callable[[Any], bytes], Decode]] = (
    (String, 25, str.encode, bytes.decode),
    (LargeBinary, 17, bytes, bytes),
    (DateTime, 1184, _encode_time, _decode_time),
    (Boolean, 16, lambda value: b"\x01" if value else b"\x00", lambda value: value == b"\x01"),
    (BigInteger, 20, lambda value: value.to_bytes(8, "big", signed=True), _decode_integer),
    (Integer, 23, lambda value: value.to_bytes(4, "big", signed=True), _decode_integer),
    (JSON, 3802, _encode_json, _decode_json),
)


def _format(kind: TypeEngine[Any], dialect: Dialect) -> tuple[int, Encode, Decode]:
    """The object id of a type, and how its values are written and read."""
    if isinstance(kind, TypeDecorator):
        object_id, encode, decode = _format(kind.load_dialect_impl(dialect), dialect)
        # Functions that a type does not have are not called.
        if type(kind).process_bind_param is not TypeDecorator.process_bind_param:
            encode = _after(kind.process_bind_param, dialect, encode)
        # A time already has a time zone.
        is_done = isinstance(kind, UtcDateTime)
        if type(kind).process_result_value is not TypeDecorator.process_result_value and not is_done:
            decode = _before(kind.process_result_value, dialect, decode)
        return object_id, encode, decode
    object_id, write, read = next(found[1:] for found in _FORMATS if isinstance(kind, found[0]))
    if isinstance(kind, Enum) and kind.enum_class is not None:
        # For texts, so that a member of an enumeration is written as its text (`columns.choice`).
        members = {member.value.encode(): member for member in kind.enum_class}
        read = members.__getitem__
    return object_id, write, read


def _after(process: Callable[[Any, Dialect], Any], dialect: Dialect, encode: Encode) -> Encode:
    return lambda value: encode(process(value, dialect))


def _before(process: Callable[[Any, Dialect], Any], dialect: Dialect, decode: Decode) -> Decode:
    return lambda value: process(decode(value), dialect)


class PostgresqlForm:
    """A statement with numbered parameters, and how values are written and read (`prepared.Form`)."""

    __slots__ = (
        "_constants",
        "_decoders",
        "_mutable",
        "_parameters",
        "_shown",
        "formats",
        "name",
        "object_ids",
        "sql",
        "text",
    )

    def __init__(self, written: Written, dialect: Dialect, number: int) -> None:
        self.text = written.text
        names: list[str] = []

        def numbered(found: re.Match[str]) -> str:
            if found[1] not in names:
                names.append(found[1])
            return f"${names.index(found[1]) + 1}"

        self.sql = _PARAMETER.sub(numbered, written.text).replace("%%", "%").encode()
        self.name = b"authserver_%d" % number
        formats = [_format(written.types[name], dialect) for name in names]
        self._constants = written.constants
        self._parameters = [(name, encode) for name, (_, encode, _) in zip(names, formats, strict=True)]
        self._shown = [(name, written.binding(name, dialect)) for name in names]
        self.object_ids = [object_id for object_id, _, _ in formats]
        self.formats = [Format.BINARY] * len(names)
        self._decoders = [(place, _format(kind, dialect)[2]) for place, kind in enumerate(written.columns)]
        # JSON, unless its type converts it to something else.
        self._mutable = [
            (place, decode)
            for (place, decode), kind in zip(self._decoders, written.columns, strict=True)
            if isinstance(kind, JSON)
        ]

    def values(self, parameters: Row) -> Sequence[bytes | None]:
        if self._constants:
            parameters = {**self._constants, **parameters}
        return [
            None if (value := parameters[name]) is None else encode(value)
            for name, encode in self._parameters
        ]

    def shown(self, parameters: Row) -> dict[str, Any]:
        values = {**self._constants, **parameters}
        return {name: process(values[name]) if process else values[name] for name, process in self._shown}

    def answer(self, result: PGresult) -> Answer:
        """The rows of a result, each value in Python's type."""
        get, decoders = result.get_value, self._decoders
        rows = [
            tuple(
                [None if (value := get(row, place)) is None else decode(value) for place, decode in decoders]
            )
            for row in range(result.ntuples)
        ]
        return Answer(rows, result.command_tuples or 0)

    def again(self, result: PGresult, answer: Answer) -> Answer:
        """A copy of the answer for another caller: mutable values are decoded again."""
        rows = [list(row) for row in answer]
        for number, row in enumerate(rows):
            for place, decode in self._mutable:
                value = result.get_value(number, place)
                row[place] = None if value is None else decode(value)
        return Answer(rows, answer.rowcount)


@dataclass(frozen=True, slots=True)
class _Remembered:
    """Rows that a connection remembers.

    Attributes:
        result: the result of libpq.
        answer: the answer that was read from it.
        versions: the versions of its rows.
        at: when it came, in seconds of the monotonic clock.
    """

    result: PGresult
    answer: Answer
    versions: str
    at: float


class PostgresqlLine:
    """One connection to PostgreSQL (`prepared.Line`)."""

    __slots__ = ("_connection", "_dialect", "_known", "_libpq", "_poll", "_remembered")

    def __init__(self, connection: psycopg.Connection[Any], dialect: Dialect) -> None:
        self._connection = connection
        self._dialect = dialect
        self._libpq = connection.pgconn
        self._poll = select.poll()
        self._poll.register(self._libpq.socket, select.POLLIN)
        # The statements that the server has prepared on this connection.
        self._known: set[bytes] = set()
        # The oldest is the first. They belong to this connection, so none is older than the server that answers.
        self._remembered: dict[tuple[Any, ...], _Remembered] = {}

    def form(self, statement: Prepared, parameters: Row) -> PostgresqlForm:
        form: PostgresqlForm | None = statement.forms.get("postgresql")
        if form is None:
            written = statement.compiled(self._dialect, parameters)
            form = statement.forms["postgresql"] = PostgresqlForm(written, self._dialect, statement.number)
        return form

    def run(self, steps: Sequence[Step], announce: Callable[[Step], None] | None) -> list[Answer]:
        if announce:
            for step in steps:
                announce(step)
        sent: list[tuple[PostgresqlForm, Sequence[bytes | None]]] = [
            (step.form, step.form.values(step.parameters)) for step in steps
        ]
        libpq = self._libpq
        # The statement of each expected result, and whether it is only prepared.
        expected: list[tuple[Step, bool]] = []
        fresh: set[bytes] = set()
        try:
            libpq.enter_pipeline_mode()
            for (form, values), step in zip(sent, steps, strict=True):
                if step.instead is not None:
                    libpq.send_query_params(step.instead.encode(), None)
                else:
                    if form.name not in self._known and form.name not in fresh:
                        libpq.send_prepare(form.name, form.sql, form.object_ids)
                        expected.append((step, True))
                        fresh.add(form.name)
                    libpq.send_query_prepared(form.name, values, form.formats, Format.BINARY)
                expected.append((step, False))
            libpq.pipeline_sync()
            results = self._connection.wait(self._communicate())
            libpq.exit_pipeline_mode()
        except BaseException:
            # It is unknown what the server would still answer.
            self._connection.close()
            raise
        answers = []
        # Without BEGIN they are committed at the end of the pipeline, and a failure of that is one more result.
        expected += [(steps[-1], False)] * (len(results) - len(expected))
        for (step, is_preparing), result in zip(expected, results, strict=True):
            if result.status in _FAILED:
                step.failed = True
                # If a check failed, the rows must be read again.
                self._remembered.clear()
                if result.error_field(DiagnosticField.SQLSTATE) == _NOT_PREPARED:
                    # Something else has deleted the prepared statements, such as a proxy. A new connection knows that
                    # it has none.
                    self._connection.close()
                raise errors.error_from_result(result, encoding="utf-8")
            if is_preparing:
                self._known.add(step.form.name)
            else:
                answers.append(step.form.answer(result) if step.is_read else NO_ANSWER)
                if step.remembers:
                    self._remember(step, result, answers[-1])
        return answers

    def recall(self, statement: Remembered, parameters: Row) -> Recalled | None:
        found = self._remembered.get(statement.key_of(parameters))
        if found is None or time.monotonic() - found.at > _REMEMBERED_SECONDS:
            return None
        again = statement.forms["postgresql"].again(found.result, found.answer)
        return Recalled(again, {**parameters, "seen": found.versions})

    def forget(self, statement: Remembered, parameters: Row) -> None:
        self._remembered.pop(statement.key_of(parameters), None)

    def _remember(self, step: Step, result: PGresult, answer: Answer) -> None:
        assert isinstance(step.statement, Remembered)
        key = step.statement.key_of(step.parameters)
        self._remembered.pop(key, None)
        # A row that does not exist has no version.
        if not result.ntuples or _size(result) > _REMEMBERED_BYTES:
            return
        versions = step.statement.versions_of(answer)
        self._remembered[key] = _Remembered(result, answer, versions, time.monotonic())
        if len(self._remembered) > _REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def reset(self) -> None:
        if self._libpq.transaction_status != TransactionStatus.IDLE:
            self._connection.rollback()

    def is_lost(self) -> bool:
        """Whether this side has received the end of the connection from the server. No statement may be running."""
        try:
            # The last message of a server comes before the end.
            while self._poll.poll(0):
                self._libpq.consume_input()
        except psycopg.OperationalError:
            return True
        return False

    def _communicate(self) -> Generator[Wait, Ready | int, list[PGresult]]:
        """Send the rest, and receive one result for each statement, including those that the server skipped.

        Waits as the driver's own generators do, so that `silence` watches this, too.
        """
        libpq = self._libpq
        while libpq.flush():
            if (yield Wait.RW) & Ready.R:
                libpq.consume_input()
        results: list[PGresult] = []
        while True:
            while libpq.is_busy():
                if (yield Wait.R):
                    libpq.consume_input()
            result = libpq.get_result()
            if result is None:
                # None comes between two results, but for ever after the connection is lost.
                if libpq.status == ConnStatus.BAD:
                    raise psycopg.OperationalError(libpq.get_error_message("utf-8"))
            elif result.status == ExecStatus.PIPELINE_SYNC:
                return results
            else:
                results.append(result)


def _size(result: PGresult) -> int:
    """The bytes of all values of a result."""
    return sum(
        len(result.get_value(row, column) or b"")
        for row in range(result.ntuples)
        for column in range(result.nfields)
    )
