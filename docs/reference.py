"""A Sphinx extension: reference pages made of what the code says of itself.

`.. reference:: settings` is replaced by every setting with its type, bounds, default and meaning, and so on for the other
PAGES. Nothing is written twice, so nothing can differ.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import msgspec
from conformance import promises, proofs
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from authserver import limits
from authserver.cli import main as command_line
from authserver.engine.declarations.forms import Forms
from authserver.engine.declarations.forms import Reference as Where
from authserver.hooks import is_implemented
from authserver.hookspecs import every_hook
from authserver.ini import PLUGIN_PREFIX, PREFIX, entry_kind
from authserver.plugins.loading import GROUP
from authserver.settings import Secret, Settings

CHECKOUT = Path(__file__).parent.parent
INI = CHECKOUT / "development.ini"


class Reference(SphinxDirective):
    """`.. reference:: NAME` is what the function of that name in PAGES returns."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        # The page depends on code, whose changes Sphinx does not see.
        self.env.note_reread()
        text = "\n".join(PAGES[self.arguments[0]]())
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("reference", Reference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# ---- settings ---------------------------------------------------------------------------------------


def settings_page() -> Iterator[str]:
    """A table of all settings, then each with its meaning."""
    rows = list(settings_of(Settings, PREFIX))
    yield from table(
        ("Setting", "Type", "Default"),
        [(f":confval:`{row.key}`", row.type, row.default or "required") for row in rows],
        widths="45 30 25",
    )
    for row in rows:
        yield from configuration_value(row, row.description)


def limits_page() -> Iterator[str]:
    """A table of what strangers may send at most."""
    hints = typing.get_type_hints(limits, include_extras=True)
    bounds = {name: typing.get_args(hint)[1] for name, hint in hints.items()}
    yield from table(
        ("At most", "Of what", "Why"),
        [(f"{getattr(limits, name):,}", bound.counts, bound.reason) for name, bound in bounds.items()],
        widths="16 42 42",
    )


def plugins_page() -> Iterator[str]:
    """Each shipped plugin: what it does, which hooks it serves, and its settings."""
    comments = ini_comments(INI.read_text(encoding="utf-8"))
    for name, kind in shipped_plugins():
        yield from heading(name, "-")
        yield f".. index:: single: plugin; {name}"
        yield ""
        yield paragraphs(kind)
        yield ""
        served = ", ".join(f":ref:`{hook} <hook-{hook}>`" for hook in hooks_of(kind))
        yield f"Serves {served}."
        if getattr(kind, "development_only", False):
            yield "For development: refused in production."
        yield ""
        for row in settings_of(kind, f"{PLUGIN_PREFIX}{name}."):
            # The INI files show an entry by an example.
            yield from configuration_value(row, comments[row.key.replace(".NAME.", ".staff.")])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One setting. `default` is "" when there is none."""

    key: str
    type: str
    default: str
    description: str


def settings_of(owner: type, prefix: str) -> Iterator[Row]:
    hints = typing.get_type_hints(owner, include_extras=True)
    for field in dataclasses.fields(owner):
        if not field.init:
            continue
        if entry := entry_kind(hints[field.name]):
            rows = settings_of(entry, f"{prefix}{field.name}.NAME.")
            yield from (row for row in rows if not row.key.endswith(".name"))
            continue
        annotation, meta = hints[field.name], msgspec.Meta()
        if typing.get_origin(annotation) is typing.Annotated:
            annotation, meta = typing.get_args(annotation)
        yield Row(
            key=prefix + field.name,
            type=type_words(annotation) + bound_words(meta),
            default=default_words(field),
            description=meta.description or "",
        )


def type_words(annotation: Any) -> str:
    if typing.get_origin(annotation) is tuple:
        item = typing.get_args(annotation)[0]
        if typing.get_origin(item) is tuple:
            return "lines of `name = text`"
        if typing.get_origin(item) is typing.Annotated:
            item = typing.get_args(item)[0]
        several = {Secret: "secrets", int: "whole numbers"}.get(item, "words")
        return f"{several}, separated by white space"
    if typing.get_origin(annotation) is types.UnionType:
        return type_words(typing.get_args(annotation)[0])
    if issubclass(annotation, StrEnum):
        return "one of " + ", ".join(f"`{member}`" for member in annotation)
    return {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "`true` or `false`",
        Secret: "secret text",
    }[annotation]


def bound_words(meta: msgspec.Meta) -> str:
    bounds = []
    if meta.ge is not None:
        bounds.append(f"{meta.ge} to {meta.le}")
    if meta.max_length is not None and meta.min_length is None:
        bounds.append(f"at most {meta.max_length}")
    elif meta.max_length is not None:
        bounds.append(f"{meta.min_length} to {meta.max_length} characters")
    elif meta.min_length is not None:
        bounds.append(f"{meta.min_length} or more")
    if meta.pattern is not None:
        bounds.append(f"`{meta.pattern}`")
    return "".join(f", {bound}" for bound in bounds)


def default_words(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return ""
    if field.default is None:
        return "none"
    if isinstance(field.default, tuple):
        if any(isinstance(item, tuple) for item in field.default):
            return "the table of the INI files"
        return f"`{' '.join(map(str, field.default))}`" if field.default else "empty"
    default = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"`{default}`" if default != "" else "empty"


def configuration_value(row: Row, description: str) -> Iterator[str]:
    yield f".. confval:: {row.key}"
    yield f"   :type: {row.type}"
    yield f"   :default: {row.default or 'none: it is required'}"
    yield ""
    yield textwrap.indent(description, "   ")
    yield ""


def ini_comments(text: str) -> Mapping[str, str]:
    """What the comment above each `authserver.plugin` key says; it holds up to the next empty line."""
    found: dict[str, str] = {}
    comment: list[str] = []
    for line in text.splitlines():
        key = re.match(rf"(?:# )?({re.escape(PLUGIN_PREFIX)}\S+) =", line)
        if key:
            found[key[1]] = " ".join(comment)
        elif line.startswith("# "):
            comment.append(line.removeprefix("# "))
        elif not line.strip():
            comment = []
    return found


def shipped_plugins() -> list[tuple[str, type]]:
    """In the order of the INI."""
    points = {point.name: point.load() for point in entry_points(group=GROUP)}
    order = re.findall(r"^ {4}(?:# )?([a-z_]+)$", INI.read_text(encoding="utf-8"), re.MULTILINE)
    return [(name, points[name]) for name in order]


def hooks_of(kind: type) -> list[str]:
    return [hook for hook in every_hook() if is_implemented(kind, hook)]


# ---- commands ---------------------------------------------------------------------------------------


def commands_page() -> Iterator[str]:
    """Every command that can be called, with its usage, what it does and its options."""
    for path, command, context in commands():
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield from heading(path, "-")
            yield f".. program:: {path}"
            yield ""
            yield from code(" ".join([path, *command.collect_usage_pieces(context)]), "text")
            yield inspect.cleandoc(command.help or "")
            yield ""
        elif path == "authserver":
            yield ".. program:: authserver"
            yield ""
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            # Arguments are in the usage, and told of in the help text.
            if isinstance(parameter, click.Option) and record and "--help" not in parameter.opts:
                yield from option(parameter, record[1])


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command and group, the whole first, with the words that call it."""

    def below(
        path: str, command: click.Command, context: click.Context
    ) -> Iterator[tuple[str, click.Command, click.Context]]:
        yield path, command, context
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                yield from below(
                    f"{path} {name}", child, click.Context(child, info_name=name, parent=context)
                )

    return below("authserver", command_line, click.Context(command_line, info_name="authserver"))


def option(parameter: click.Option, words: str) -> Iterator[str]:
    names = ", ".join(parameter.opts)
    is_flag = parameter.is_flag or parameter.count
    value = (
        ""
        if is_flag or "--version" in parameter.opts
        else f" {parameter.make_metavar(click.Context(command_line))}"
    )
    yield f".. option:: {names}{value}"
    yield ""
    yield f"   {escape(words)}"
    yield ""


# ---- hooks ------------------------------------------------------------------------------------------


def hooks_page() -> Iterator[str]:
    """Every hook, from its docstring in its fixed form."""
    for hook, declared in every_hook().items():
        function, kind = declared.function, declared.kind
        yield f".. index:: single: hook; {hook}"
        yield ""
        yield f".. _hook-{hook}:"
        yield ""
        yield from heading(hook, "-")
        yield from code(f"def {hook}{signature(function)}", "python")
        yield from hook_words(inspect.getdoc(function) or "")
        served = ", ".join(f"`{name}`" for name, kind in shipped_plugins() if hook in hooks_of(kind))
        protocol = "".join(word.capitalize() for word in hook.split("_")) + "Hook"
        yield f"**Kind:** {kind}. **Protocol:** `{protocol}`. **Shipped plugins** that serve it: {served or 'none'}."
        yield ""


def hook_words(text: str) -> Iterator[str]:
    parts = re.split(r"^(Arguments:|Answers:|Silence:|Example::|Added in .*)", text, flags=re.MULTILINE)
    yield parts[0]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        if title == "Example::":
            yield "**Example**"
            yield ""
            yield from code(textwrap.dedent(body).strip(), "python")
        elif title in ("Arguments:", "Answers:"):
            yield f"**{title.rstrip(':')}**"
            yield ""
            yield from definitions(textwrap.dedent(body.strip("\n")))
        else:
            yield f"**If no plugin answers:** {body.strip()}" if title == "Silence:" else title
            yield ""


def definitions(text: str) -> Iterator[str]:
    """`term: words`, a paragraph each, as a definition list; what has no term stays a paragraph."""
    for item in re.split(r"\n(?=\S)", text.strip()):
        term, colon, words = item.partition(": ")
        if colon and "." not in term:
            yield f"{term}" if " " in term and "(" not in term else f"`{term}`"
            yield textwrap.indent(textwrap.dedent(" ".join(words.split())), "   ")
        else:
            yield " ".join(item.split())
        yield ""


def signature(function: Any) -> str:
    """As a reader of `hookspecs.py` sees it, a line for each argument when there are several."""
    found = inspect.signature(function)
    arguments = [f"{name}: {item.annotation}" for name, item in found.parameters.items()]
    joined = ", ".join(arguments)
    if len(joined) > 60:
        joined = "\n    " + ",\n    ".join(arguments) + ",\n"
    return f"({joined}) -> {found.return_annotation}"


# ---- conformance ------------------------------------------------------------------------------------


def conformance_page() -> Iterator[str]:
    """Each promise by its area: what it says, the section that asks for it, and the tests that prove it."""
    proven = proofs()
    for area, lines in promises().items():
        yield from heading(area, "-")
        for promise in lines:
            yield f"**{promise.id}**{f' ({promise.source})' if promise.source else ''}"
            yield f"   {promise.statement}"
            yield ""
            for file, names in proven[promise.id].items():
                words = "; ".join(name.removeprefix("test_").replace("_", " ") for name in names)
                yield f"   - `{file}`: {words}"
            yield ""


# ---- declarations -----------------------------------------------------------------------------------


def declarations_page() -> Iterator[str]:
    """Each kind of thing that files can declare, with a table of its keys."""
    for kind, annotation in typing.get_type_hints(Forms, include_extras=True).items():
        mapping, meta = typing.get_args(annotation)
        form = typing.get_args(mapping)[1]
        is_table = dataclasses.is_dataclass(form)
        yield from heading(f"``[{kind}.NAME]``" if is_table else f"``[{kind}]``", "~")
        yield meta.description
        yield ""
        if is_table:
            hints = typing.get_type_hints(form, include_extras=True)
            yield from table(
                ("Key", "What", "Default", "Meaning"),
                [declared_key(field, hints[field.name]) for field in dataclasses.fields(form)],
                widths="22 18 15 45",
            )


def declared_key(field: dataclasses.Field[Any], annotation: Any) -> tuple[str, str, str, str]:
    kind, meta = typing.get_args(annotation)
    if field.default_factory is not dataclasses.MISSING or field.default in (None, "", ()):
        default = "none"
    else:
        default = default_words(field) or "required"
    return f"`{field.name}`", declared_words(kind), default, meta.description


def declared_words(kind: Any) -> str:
    """What a value is, in the words of TOML."""
    if typing.get_origin(kind) is typing.Annotated:
        inner, meta = typing.get_args(kind)
        return declared_words(inner) + bound_words(meta)
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return declared_words(typing.get_args(kind)[0])
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(f"`{value}`" for value in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return "array of texts"
    if typing.get_origin(kind) is dict:
        return "table"
    if kind is Where:
        return "reference"
    return {datetime: "date and time with offset"}.get(kind) or type_words(kind)


# ---- words ------------------------------------------------------------------------------------------


def paragraphs(kind: type) -> str:
    """The docstring of a plugin without its list of attributes, which the settings below it are."""
    return (inspect.getdoc(kind) or "").partition("\nAttributes:")[0].strip()


def heading(text: str, underline: str) -> Iterator[str]:
    yield text
    yield underline * len(text)
    yield ""


def code(text: str, language: str) -> Iterator[str]:
    yield f".. code-block:: {language}"
    yield ""
    yield textwrap.indent(text, "   ")
    yield ""


def table(titles: Iterable[str], rows: Iterable[Iterable[str]], *, widths: str) -> Iterator[str]:
    yield ".. list-table::"
    yield "   :header-rows: 1"
    yield f"   :widths: {widths}"
    yield ""
    for row in (titles, *rows):
        for index, cell in enumerate(row):
            yield f"   {'*' if index == 0 else ' '} - {cell}"
    yield ""


def escape(text: str) -> str:
    return re.sub(r"([*|])", r"\\\1", text)


PAGES = {
    "settings": settings_page,
    "limits": limits_page,
    "plugins": plugins_page,
    "commands": commands_page,
    "declarations": declarations_page,
    "hooks": hooks_page,
    "conformance": conformance_page,
}
