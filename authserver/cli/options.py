"""What several commands do with their options."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from authserver.engine.clients.client_metadata import value_of

# For scopes and resources, of which a value may have several, like `scope` in a request (RFC 6749, 3.3).
MORE = "several times, or several separated by spaces"


def separated(context: click.Context, option: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """The callback of an option with `multiple=True`: the items of all its values.

    A value without an item stays as it is, for the command to refuse.
    """
    return tuple(item for value in values for item in value.split() or (value,))


class _Pair(click.ParamType[tuple[str, str]]):
    """`NAME=VALUE`, as a pair, without the spaces around both."""

    name = "pair"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not equals or not name.strip():
            self.fail(f"{value!r} is not NAME=VALUE", param, context)
        return name.strip(), text.strip()


PAIR = _Pair()


def read_each(option: str, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The values by name, each read as JSON, or else as text. Raises click.UsageError for a name that comes twice."""
    found: dict[str, Any] = {}
    for name, text in pairs:
        if name in found:
            raise click.UsageError(f"{option} {name}: given twice")
        found[name] = value_of(text)
    return found


def is_given(parameter: str) -> bool:
    """Whether the present command was called with the option of this parameter, even if with its default."""
    source = click.get_current_context().get_parameter_source(parameter)
    return source is not click.core.ParameterSource.DEFAULT
