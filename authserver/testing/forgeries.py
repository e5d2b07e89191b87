"""JWTs, JWK Sets, JSON texts and answers of servers that every verifier must refuse.

The server and `authserver-resource` are both tested with them, so that both give the same answer. Each line has broken
a real verifier.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Collection, Mapping
from typing import Any

from joserfc.jwk import ECKey, OctKey, RSAKey
from joserfc.jws import JWSRegistry

from authserver.testing.origins import Reply, dripping, raw, sending

STRANGER = ECKey.generate_key("P-256")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

# JSON texts, by their fault.
JSON: Mapping[str, bytes] = {
    "a name twice": b'{"a": 1, "a": 2}',
    "a name twice, further in": b'{"a": {"b": 1, "\\u0062": 2}}',
    "a name twice beside a URL": b'{"a": "https://a.example", "a": "https://b.example"}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": Infinity}',
    "minus infinity": b'{"a": -Infinity}',
    "a number beyond all": b'{"a": 1e999}',
    "an integer beyond 64 bits": b'{"a": 9223372036854775808}',
    "an integer of 400 digits": b'{"a": %b}' % (b"9" * 400),
    "an integer of 5000 digits": b'{"a": %b}' % (b"9" * 5000),
    "deep lists": b'{"a": %b}' % (b"[" * 17 + b"]" * 17),
    "deep objects": b'{"a":' * 17 + b"1" + b"}" * 17,
    "lists without end": b'{"a": ' + b"[" * 3000,
    "no UTF-8": b'{"a": "\xff"}',
    "half of a character in UTF-8": b'{"a": "\xed\xa0\x80"}',
    "half of a character": b'{"a": ["\\ud800"]}',
    "NUL in a name": b'{"\\u0000": 1}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "single quotation marks": b"{'a': 1}",
    "a comma too many": b'{"a": 1,}',
    "something after it": b'{"a": 1} x',
    "two objects": b'{"a": 1}{"a": 1}',
    "a line end in a text": b'{"a": "\n"}',
    "cut short": b'{"a": "b',
    "nothing": b"",
}
# In place of an object.
NO_OBJECTS: Mapping[str, bytes] = {
    "a list": b"[]",
    "a text": b'"a"',
    "a number": b"1",
    "null": b"null",
    "HTML": b"<html></html>",
}


def encoded(part: Any) -> str:
    """A part of a JWS: bytes as they are, anything else as JSON."""
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def signed(header: Any, claims: Any, key: Any, algorithm: str = "ES256") -> str:
    """A compact JWS with exactly this header and these claims, signed with this algorithm whatever the header says."""
    text = f"{encoded(header)}.{encoded(claims)}"
    return f"{text}.{encoded(JWSRegistry.algorithms[algorithm].sign(text.encode(), key))}"


def another_spelling(text: str) -> str:
    """The same bytes with other text in base64url: the bits that padding ignores are set."""
    if len(text) % 4 == 0:
        raise ValueError("this text has one spelling")
    return text[:-1] + _ALPHABET[_ALPHABET.index(text[-1]) | 1]


def beside(members: Mapping[str, Any], text: bytes) -> bytes:
    """A JSON text with these members in front, so that it has no other fault."""
    return json.dumps(members).encode()[:-1] + b", " + text[1:] if text.startswith(b"{") else text


def jwts(
    header: Mapping[str, Any],
    claims: Mapping[str, Any],
    key: Any,
    *,
    required: Collection[str] = (),
    times: Collection[str] = (),
    types: Collection[Any] = (),
) -> dict[str, str]:
    """JWTs that no verifier may accept, by their fault.

    Args:
        header: the header of a valid JWT, which is signed with ES256.
        claims: the claims of a valid JWT.
        key: the private key that signs valid JWTs, for ES256.
        required: claims that must be present as texts.
        times: claims that must be present as seconds since 1970.
        types: wrong values of `typ` besides those that are wrong everywhere.
    """
    good = signed(header, claims, key)
    head, body, signature = good.split(".")
    public = key.as_dict(private=False)
    found = {
        **_spellings(head, body, signature),
        **{
            f"header: {name}": signed(text, claims, key)
            for name, text in {**_with(header), **NO_OBJECTS}.items()
        },
        **{
            f"claims: {name}": signed(header, text, key)
            for name, text in {**_with(claims), **NO_OBJECTS}.items()
        },
        "huge": signed(header, {**claims, "note": "x" * 20_000}, key),
        "a long header": signed({**header, "note": "x" * 20_000}, claims, key),
        # Which key and which algorithm (T054, T055)
        "alg none": f"{encoded({**header, 'alg': 'none'})}.{body}.",
        "alg nOnE": f"{encoded({**header, 'alg': 'nOnE'})}.{body}.",
        "alg none, signed": signed({**header, "alg": "none"}, claims, key),
        "a MAC with nothing": _mac(header, body, b"\0" * 32),
        "a MAC with the public key as JWK": _mac(header, body, json.dumps(public).encode()),
        "a MAC with the public key in PEM": _mac(header, body, key.as_pem(private=False)),
        "a MAC with the public key in DER": _mac(header, body, key.as_der(private=False)),
        "another's key": signed(header, claims, STRANGER),
        "claims changed": f"{head}.{encoded({**claims, 'sub': 'eve', 'jti': 'eve'})}.{signature}",
        "no signature": f"{head}.{body}.",
        "a short signature": f"{head}.{body}.AAAA",
        "a signature of zeros": f"{head}.{body}.{encoded(bytes(64))}",
        "a signature in DER": f"{head}.{body}.{encoded(bytes([48, 6, 2, 1, 1, 2, 1, 1]))}",
    }
    changed_headers: dict[str, dict[str, Any]] = {
        **{
            f"alg {value}": {"alg": value}
            for value in ("RS256", "PS256", "EdDSA", "HS256", "ES512", "", 7, ["ES256"], None)
        },
        # Header parameters that change how it is read, or bring a key (T055, T056)
        "jku": {"jku": "https://evil.example/jwks"},
        "x5u": {"x5u": "https://evil.example/cert"},
        "x5c": {"x5c": ["MIIB"]},
        "crit": {"crit": ["exp"]},
        "crit that is empty": {"crit": []},
        "b64": {"b64": False},
        "b64 that is critical": {"crit": ["b64"], "b64": False},
        "zip": {"zip": "DEF"},
        "enc": {"enc": "A256GCM"},
        **{
            f"typ {value}": {"typ": value}
            for value in ("logout+jwt", "secevent+jwt", "token-introspection+jwt", "", 7, ["JWT"], *types)
        },
    }
    if "kid" in header:
        changed_headers["jwk of another"] = {"jwk": STRANGER.as_dict(private=False)}
        changed_headers["jwk"] = {"jwk": public}
        for kid in ("", "unknown", "../../dev/null", "' OR 1=1 --", 7, [header["kid"]], "k" * 1000):
            changed_headers[f"kid {str(kid)[:20]}"] = {"kid": kid}
    for name, changes in changed_headers.items():
        found[name] = signed({**header, **changes}, claims, key)
    for claim in (*required, *times):
        rest = {name: value for name, value in claims.items() if name != claim}
        found[f"no {claim}"] = signed(header, rest, key)
        wrong = [7, True] if claim in required else ["now", str(int(time.time())), True]
        for value in (*wrong, "", None, [], [[claims[claim]]], {"a": claims[claim]}):
            found[f"{claim} {value!r}"[:60]] = signed(header, {**claims, claim: value}, key)
    for claim in times:
        for number in ("NaN", "Infinity", "1e999", "9" * 400):
            text = json.dumps({**claims, claim: "@"}).replace('"@"', number).encode()
            found[f"{claim} {number[:20]}"] = signed(header, text, key)
    return found


def key_sets(private: Any, kid: str) -> dict[str, Any]:
    """JWK Sets with no key that can verify (T058), by their fault.

    Args:
        private: the key for ES256 that signed the token.
        kid: the `kid` of the token.
    """
    public = {**private.as_dict(private=False), "kid": kid, "alg": "ES256", "use": "sig"}
    rsa = {**RSAKey.generate_key(2048).as_dict(private=False), "kid": kid, "alg": "RS256", "use": "sig"}
    small = encoded(b"\xc0" + bytes(126) + b"\x01")
    return {
        "no object": "keys",
        "a list": [public],
        "no keys": {},
        "an empty list": {"keys": []},
        "an object of keys": {"keys": {kid: public}},
        "keys that are none": {"keys": [7]},
        "a private key": {"keys": [{**public, **private.as_dict(private=True)}]},
        "half of a private key": {"keys": [{**public, "d": ""}]},
        "a symmetric key": {"keys": [{**OctKey.generate_key(256).as_dict(), "kid": kid}]},
        "a small RSA key": {"keys": [{**rsa, "n": small}]},
        "a giant RSA key": {"keys": [{**rsa, "n": encoded(b"\xc0" + bytes(1024) + b"\x01")}]},
        "an RSA key with exponent 1": {"keys": [{**rsa, "e": "AQ"}]},
        "an RSA key with exponent 0": {"keys": [{**rsa, "e": "AA"}]},
        "a number in an RSA key": {"keys": [{**rsa, "n": 7}]},
        "a broken point": {"keys": [{**public, "x": encoded(bytes(32))}]},
        "a point with a leading zero": {"keys": [{**public, "x": "AA" + public["x"]}]},
        "a point that is spelt otherwise": {"keys": [{**public, "x": another_spelling(public["x"])}]},
        "a point that is not ASCII": {"keys": [{**public, "x": "é"}]},
        "half of a point": {"keys": [{name: value for name, value in public.items() if name != "y"}]},
        "another type than its algorithm": {"keys": [{**public, "alg": "RS256"}]},
        "another curve": {"keys": [{**public, "crv": "secp256k1"}]},
        "for encryption": {"keys": [{**public, "use": "enc"}]},
        "two of one name": {
            "keys": [public, {**STRANGER.as_dict(private=False), "kid": kid, "alg": "ES256"}]
        },
        "a hundred and one": {"keys": [{**public, "kid": f"{kid}{number}"} for number in range(101)]},
    }


# Answers of a server to a request for a JSON document, by their fault (T125, T126).
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ANSWERS: Mapping[str, Reply] = {
    "500": sending(status=500),
    "404": sending(status=404),
    "201": sending(status=201),
    "304 unasked": raw(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "300": sending(status=300, Location="https://a.example/"),
    "103": raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" + _HEAD + b"\r\n{}"),
    "no http": raw(b"gibberish\r\n\r\n"),
    "a chunk of less than nothing": raw(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n"),
    "a chunk of no number": raw(_HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n"),
    "two ends": raw(_HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    "two lengths": raw(_HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "a length of less than nothing": raw(_HEAD + b"Content-Length: -1\r\n\r\n{}"),
    "gzip of the transfer": raw(_HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    "interim answers without end": raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000),
    "trailers without end": raw(
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 100_000
    ),
    "an extension of a chunk without end": raw(
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * 1_000_000
    ),
    "nothing": raw(b""),
    "gzip bomb": sending(gzip.compress(b" " * 2_000_000), Content_Encoding="gzip"),
    "gzip twice": sending(b"", Content_Encoding="gzip, gzip"),
    "brotli": sending(b"", Content_Encoding="br"),
    "said to be too long": sending(b" " * 70_000, Content_Length="99999999999"),
    "endless": raw(_HEAD + b"\r\n" + b" " * 300_000),
    "cut short": raw(_HEAD + b"Content-Length: 50\r\n\r\n{}"),
    "many headers": raw(_HEAD + b"X: y\r\n" * 500 + b"\r\n"),
    "a header without end": raw(_HEAD + b"X: " + b"y" * 200_000),
    "a giant status line": raw(b"HTTP/1.1 200 " + b"y" * 200_000),
}
REDIRECTS = (301, 302, 303, 307, 308)
# Answers that never end, although each piece comes in time.
DRIPS: Mapping[str, Reply] = {
    "nothing": dripping(b"", b""),
    "status line": dripping(b"HTTP/1.1 2", b"0"),
    "headers": dripping(_HEAD, b"X: y\r\n"),
    "body": dripping(_HEAD + b"Content-Length: 60000\r\n\r\n", b" "),
    "chunks": dripping(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "until the end": dripping(_HEAD + b"\r\n", b" "),
}


def _spellings(head: str, body: str, signature: str) -> dict[str, str]:
    """Texts that are not a compact JWS, or another spelling of one (T060)."""
    good = f"{head}.{body}.{signature}"
    return {
        "one word": "word",
        "two parts": f"{head}.{body}",
        "four parts": f"{good}.x",
        "five parts": f"{good}.a.b",
        "three empty parts": "..",
        "encrypted": "e30.AAAA.AAAA.AAAA.AAAA",
        "two joined": f"{good},{good}",
        "padded": f"{good}==",
        "a space in it": f"{head}.{body[:4]} {body[4:]}.{signature}",
        "a line end in it": f"{head}.{body[:4]}\n{body[4:]}.{signature}",
        "NUL in it": f"{head}.{body[:4]}\0{body[4:]}.{signature}",
        "the standard alphabet": f"{head}.{body}.+/{signature[2:]}",
        "the signature in another spelling": f"{head}.{body}.{another_spelling(signature)}",
        "not ASCII": f"{good}é",
    }


def _mac(header: Mapping[str, Any], body: str, secret: bytes) -> str:
    text = f"{encoded({**header, 'alg': 'HS256'})}.{body}"
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def _with(members: Mapping[str, Any]) -> dict[str, bytes]:
    """The JSON texts above with these members added, and these members with one of them twice."""
    found = {name: beside(members, text) for name, text in JSON.items()}
    for name, value in members.items():
        found[f"{name} twice"] = beside({name: value}, json.dumps(members).encode())
    return found
