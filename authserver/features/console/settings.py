"""The settings as they were loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from authserver.explaining.settings import of_plugins, of_server
from authserver.features.console.pages import Page, Visit


def show(visit: Visit) -> Mapping[str, Any]:
    """The settings in effect; with a search only those that have the text in their key or value."""
    origins, wanted = visit.application.origins, visit.get("search").lower()
    groups = {"": of_server(visit.engine.settings, origins)}
    groups |= of_plugins(visit.application.parts.policies, origins)
    found = {
        name: [
            setting for setting in group if wanted in setting.key.lower() or wanted in setting.value.lower()
        ]
        for name, group in groups.items()
    }
    return {"groups": {name: group for name, group in found.items() if group}, "search": visit.get("search")}


PAGES = (
    Page(
        name="admin_settings",
        path="/admin/settings",
        show=show,
        template="settings.jinja2",
        entry="Settings",
    ),
)
