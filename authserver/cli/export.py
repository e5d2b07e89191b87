"""`authserver export`: writes the present state as declarations for `authserver apply` (R-17)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import click

from authserver.cli.configuration import Configuration
from authserver.cli.printing import print_toml, say
from authserver.declaring.writing import toml_of
from authserver.engine.declarations.export import KINDS, Exported
from authserver.engine.declarations.export import export as export_forms
from authserver.engine.declarations.forms import Forms
from authserver.ini import did_you_mean

_HEAD = "# Written by `authserver export`; `authserver apply` reads it.\n\n"


def _kinds(context: click.Context, parameter: click.Parameter, value: str | None) -> Sequence[str]:
    """The type of --only. Raises click.BadParameter."""
    if value is None:
        return KINDS
    named = [name.strip() for name in value.split(",") if name.strip()]
    for name in named:
        if name not in KINDS:
            raise click.BadParameter(f"{name}: no such kind; {did_you_mean(name, KINDS, '')}")
    return named


@click.command()
@click.argument("path", metavar="[FILE|FOLDER]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--only",
    "kinds",
    metavar="KIND,KIND",
    callback=_kinds,
    help=f"Only these kinds of {', '.join(KINDS)}.",
)
@click.option("--self-registered", is_flag=True, help="Also clients that registered themselves.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.pass_obj
def export(
    configuration: Configuration,
    path: Path | None,
    kinds: Sequence[str],
    self_registered: bool,
    force: bool,
) -> None:
    """Write the present state as TOML for `authserver apply`: to stdout, to a file whose name ends in .toml, or
    to a folder, with a file for each kind.

    Secrets are not stored readable, so only their declared places are written. The order is always the same.
    """
    with closing(configuration.application()) as application:
        application.check_database()
        policies = application.parts.policies
        with application.begin() as engine:
            exported = export_forms(
                engine,
                kinds=kinds,
                self_registered=self_registered,
                plugins={name: policies.plugin(name) for name in policies.names},
            )
    files = _files(path, kinds, exported)
    if path is None:
        for text in files.values():
            print_toml(text)
    else:
        _write(files, force=force)
        names = ", ".join(map(str, files))
        say(f"Written: {names}." if files else "There is nothing to write.", err=True)
    if exported.left_out:
        left = ", ".join(f"{count} {why}" for why, count in sorted(exported.left_out.items()))
        say(f"Clients left out: {left}.", err=True)


def _files(path: Path | None, kinds: Sequence[str], exported: Exported) -> Mapping[Path, str]:
    """The text of each file; the file without a name is stdout."""
    if path is None or path.suffix == ".toml":
        return {path or Path("-"): _HEAD + toml_of(exported.forms, exported.remarks)}
    found = {kind: Forms(**{kind: getattr(exported.forms, kind)}) for kind in kinds}
    return {
        path / f"{kind}.toml": _HEAD + toml_of(forms, exported.remarks)
        for kind, forms in found.items()
        if getattr(forms, kind)
    }


def _write(files: Mapping[Path, str], *, force: bool) -> None:
    there = [file for file in files if file.exists()]
    if there and not force:
        raise click.ClickException(f"{', '.join(map(str, there))}: exists already; --force overwrites it")
    for file, text in files.items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
