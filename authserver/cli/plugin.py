"""`authserver plugin`: makes the project of a new plugin."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from authserver.cli.printing import say
from authserver.hookspecs import DECIDING, every_hook
from authserver.plugins.loading import GROUP

TEMPLATES = files("authserver.cli") / "plugin_template"
# The template for a deciding hook that has no other.
ANY_DECIDING = "deciding"
HOOKS = tuple(every_hook())
MAXIMUM_NAME = 30

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_FIELD = re.compile(r"^POLICY = \w+\((.*)\)$", re.MULTILINE)
_SETTING = re.compile(r'(\w+)=(?:\("([^"]*)",\)|"([^"]*)"|(True))')


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a plugin in each place."""

    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """In the INI: `quiet_hours`."""
        return "_".join(self.words)

    @property
    def project(self) -> str:
        """As a distribution and a folder: `authserver-quiet-hours`."""
        return "-".join(("authserver", *self.words))

    @property
    def module(self) -> str:
        """For `import`: `authserver_quiet_hours`."""
        return f"authserver_{self.name}"

    @property
    def kind(self) -> str:
        """The class: `QuietHours`."""
        return "".join(word.capitalize() for word in self.words)


@click.group()
def plugin() -> None:
    """Plugins of your own."""


@plugin.command()
@click.argument("name")
@click.option(
    "--hook", type=click.Choice(HOOKS), default="scope_decision", show_default=True, help="What it answers."
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    show_default=True,
    help="The folder in which its own folder is made.",
)
def new(name: str, hook: str, directory: Path) -> None:
    """Make a plugin: a complete small distribution, whose tests pass.

    NAME is in small letters, digits and hyphens: `quiet-hours`.
    """
    names = _names(name)
    project = directory / names.project
    if project.exists():
        raise click.ClickException(f"{project} is there already; choose another name, or remove it")
    texts = written(names, hook)
    for path, text in texts.items():
        file = project / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    say(f"{project} is ready; what it decides is in src/{names.module}/__init__.py.\n")
    say(f"    cd {project}\n    pip install -e '.[test]'\n    python -m pytest\n")
    say(f"Its README says how to switch it on; in authserver.plugins its name is {names.name}.")


def written(names: Names, hook: str) -> Mapping[Path, str]:
    """The files of a new plugin, by their places in its folder."""
    values = {
        "name": names.name,
        "project": names.project,
        "module": names.module,
        "kind": names.kind,
        "title": " ".join(names.words).capitalize(),
        "hook": hook,
        # The oldest release with which the plugin works for certain: this one.
        "version": version("authserver"),
    }
    template = hook
    if not (TEMPLATES / f"{hook}.module.txt").is_file():
        template = ANY_DECIDING
        values["arguments"] = ", ".join(item.name for item in fields(DECIDING[hook].question))
    test = _filled(f"{template}.test.txt", values)
    values["settings"] = _settings(names, test)
    package = Path("src", names.module)
    return {
        Path("pyproject.toml"): _filled("pyproject.txt", values),
        Path("README.md"): _filled("readme.txt", values),
        package / "__init__.py": _filled(f"{template}.module.txt", values),
        package / "py.typed": "",
        Path("tests", f"test_{names.name}.py"): test,
    }


def _names(text: str) -> Names:
    """Raises click.BadParameter."""
    text = text.removeprefix("authserver-")
    if not _NAME.fullmatch(text) or len(text) > MAXIMUM_NAME:
        raise click.BadParameter(
            f"{text!r} cannot be the name of a plugin; write it in at most {MAXIMUM_NAME} small letters, digits and "
            "hyphens, beginning with a letter: quiet-hours",
            param_hint="NAME",
        )
    names = Names(tuple(text.split("-")))
    if names.name in {point.name for point in entry_points(group=GROUP)}:
        raise click.BadParameter(f"a plugin called {names.name} is installed already", param_hint="NAME")
    used = "".join(file.read_text(encoding="utf-8") for file in TEMPLATES.iterdir())
    if keyword.iskeyword(names.kind) or re.search(rf"\b{names.kind}\b", used):
        raise click.BadParameter(
            f"its class would be called {names.kind}, which means something else; use two words: {text}-policy",
            param_hint="NAME",
        )
    return names


def _filled(template: str, values: Mapping[str, str]) -> str:
    return Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(values)


def _settings(names: Names, test: str) -> str:
    """The settings that the test makes the policy with, as lines of INI."""
    made = _FIELD.search(test)
    found = _SETTING.findall(made[1]) if made else []
    return "\n".join(
        f"authserver.plugin.{names.name}.{field} = {word or text or flag.lower()}"
        for field, word, text, flag in found
    )
