import json

from authserver.api import DocumentKind, FetchFailed, InvalidRequest


def read_uris(reply):
    uris = json.loads(reply.body)
    if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
        raise ValueError("not an array of URIs")
    return frozenset(uris)


SECTOR = DocumentKind(name="sector", read=read_uris, maximum=20_000, last_good_for=3600)


def uris_of(engine, url):
    """The redirect URIs of a sector (OpenID Connect Core, 8.1)."""
    try:
        return engine.fetcher.fetch(SECTOR, url).value
    except FetchFailed as error:
        raise InvalidRequest(str(error), reason=f"sector-{error.problem}") from error
