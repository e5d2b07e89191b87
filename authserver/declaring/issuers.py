"""The trusted issuers of the INI: a file that declares them, in the form in which `authserver apply` reads them.

They are read at start, and are not in the database. A mistake in one of them stops the start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path as FilePath

from authserver.declaring.places import Path
from authserver.declaring.reading import BadDeclarations, read_files
from authserver.engine.context import AssertionProfile
from authserver.engine.declarations.forms import Forms
from authserver.engine.issuers import BadIssuer, check_entry
from authserver.engine.setting_records import TrustedIssuer
from authserver.settings import Settings, SettingsError

SETTING = "authserver.trusted_issuers"
_KIND = "issuers"


def read(
    settings: Settings, profiles: Mapping[str, AssertionProfile], scopes: Collection[str]
) -> tuple[TrustedIssuer, ...]:
    """The issuers that the setting declares; none if it is empty.

    Args:
        profiles: the profiles of the plugins by name.
        scopes: all scopes that are offered.

    Raises:
        SettingsError: the files cannot be read, or an entry is not valid; the message lists every problem.
    """
    if not settings.trusted_issuers:
        return ()
    try:
        files = read_files(FilePath(settings.trusted_issuers))
    except BadDeclarations as bad:
        raise SettingsError([f"{SETTING}: {problem}" for problem in bad.problems]) from None
    forms = files.declared.forms
    problems = [
        files.told((item.name,), "only issuers are declared here; use `authserver apply` for the rest")
        for item in fields(Forms)
        if item.name != _KIND and getattr(forms, item.name)
    ]
    found = []
    for name, form in sorted(forms.issuers.items()):
        path: Path = (_KIND, name)
        try:
            keys = files.declared.files.get((*path, "jwks"), b"").decode()
            issuer = replace(form.as_entry(name, keys), setting=SETTING)
            if name == settings.issuer:
                raise BadIssuer("this server accepts nothing that it signed itself")
            check_entry(issuer, profiles, scopes)
        except UnicodeDecodeError:
            problems.append(files.told((*path, "jwks"), "this is not a JWK Set: it is not UTF-8"))
        except BadIssuer as bad:
            problems.append(files.told((*path, bad.member) if bad.member else path, str(bad)))
        else:
            found.append(issuer)
    if problems:
        raise SettingsError([f"{SETTING}: {problem}" for problem in problems])
    return tuple(found)
