"""Plugins that deliver events, as readers of the events (`authserver.event_readers`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from authserver.engine.context import Begin
from authserver.engine.event_stream import Numbered
from authserver.engine.ports import Stores
from authserver.plugins.asking import PluginSet


@dataclass(frozen=True, slots=True)
class Delivery:
    """Gives each event to one plugin (hook `deliver`).

    Attributes:
        plugin: the name of the plugin.
        begin: gives the plugin an engine in a transaction of its own.
    """

    interval: ClassVar[float] = 1.0
    # A small number, because a plugin that fails at the last event gets all of them again.
    batch: ClassVar[int] = 50
    begins_with_the_first: ClassVar[bool] = False
    may_miss_events: ClassVar[bool] = True
    needs_decisions: ClassVar[bool] = True

    plugins: PluginSet
    plugin: str
    begin: Begin

    @property
    def name(self) -> str:
        """The name under which its position among the events is kept."""
        return f"plugin {self.plugin}"

    def take(self, events: Sequence[Numbered]) -> None:
        """Give these events to the plugin; an exception means that it gets them again."""
        self.plugins.deliver(self.plugin, tuple(event for _, event in events), self.begin)

    def keep(self, stores: Stores, events: Sequence[Numbered]) -> None:
        """Nothing is stored."""


def deliveries(plugins: PluginSet, begin: Begin) -> tuple[Delivery, ...]:
    """A `Delivery` for each plugin that delivers events."""
    return tuple(Delivery(plugins, name, begin) for name in plugins.delivering)
