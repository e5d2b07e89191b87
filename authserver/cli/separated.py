"""Options for scopes and resources, of which a value may have several, as `scope` has in a request (RFC 6749, 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import click

MORE = "several times, or several separated by spaces"


def separated(context: click.Context, option: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """The callback of an option with `multiple=True`: the items of all its values.

    A value without an item stays as it is, for the command to refuse.
    """
    return tuple(item for value in values for item in value.split() or (value,))
