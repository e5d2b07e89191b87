"""What several commands do with their options."""

from __future__ import annotations

from collections.abc import Sequence

import click

# For scopes and resources, of which a value may have several, like `scope` in a request (RFC 6749, 3.3).
MORE = "several times, or several separated by spaces"


def separated(context: click.Context, option: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """The callback of an option with `multiple=True`: the items of all its values.

    A value without an item stays as it is, for the command to refuse.
    """
    return tuple(item for value in values for item in value.split() or (value,))


def is_given(parameter: str) -> bool:
    """Whether the present command was called with the option of this parameter, even if with its default."""
    source = click.get_current_context().get_parameter_source(parameter)
    return source is not click.core.ParameterSource.DEFAULT
