"""Fetches documents of other servers that a request names, and limits callers that name many unreachable ones."""

from __future__ import annotations

from typing import TypeVar

from authserver.engine import rates
from authserver.engine.context import Engine
from authserver.engine.documents import Document, DocumentKind, FetchFailed, FetchProblem
from authserver.engine.questions import Counted

T = TypeVar("T")
# Another attempt is refused before anything is fetched, so it says nothing about the caller.
_NOT_TRIED = (FetchProblem.PACED, FetchProblem.BUSY)


def fetch(engine: Engine, kind: DocumentKind[T], url: str, *, again: bool = False) -> Document[T]:
    """The document at a URL that the caller of this request chose. A failure counts against the caller.

    Args:
        again: whether a fresh one is fetched again, if the kind allows that by now (`Fetcher.fetch`).

    Raises:
        FetchFailed: it could not be fetched.
        TooManyRequests: too many documents that this source named could not be fetched.
    """
    kept = None if again else engine.fetcher.cached(kind, url)
    if kept is not None:
        return kept
    claimed = rates.claim(engine, Counted.FAILED_FETCH)
    try:
        document = engine.fetcher.fetch(kind, url, again=again)
    except FetchFailed as failed:
        if failed.problem in _NOT_TRIED:
            rates.give_back(engine, claimed)
        raise
    rates.give_back(engine, claimed)
    return document
