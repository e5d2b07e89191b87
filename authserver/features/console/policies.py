"""The plugins at each hook in their order, what silence means, and the settings of the plugins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from authserver.explaining.settings import of_plugins
from authserver.features.console import shadows, trying
from authserver.features.console.pages import Page, Visit

_KINDS = {"deciding": "Who decides", "contributing": "Who adds something", "observing": "Who is told"}


def show(visit: Visit) -> Mapping[str, Any]:
    """The table of hooks, and each plugin with its settings."""
    policies = visit.application.parts.policies
    table = policies.table()
    settings = of_plugins(policies, visit.application.origins)
    return {
        "kinds": {
            title: rows
            for kind, title in _KINDS.items()
            if (rows := [row for row in table if row["kind"] == kind])
        },
        "plugins": [
            {
                "name": name,
                "hooks": [row["hook"] for row in table if name in row["plugins"]],
                "settings": found,
            }
            for name, found in settings.items()
        ],
        "questions": trying.BY_HOOK,
        # A setting for a client is also in the variants for its resources, but is shown only once.
        "variants": list(
            dict.fromkeys(
                (variant["plugin"], setting, value)
                for row in table
                for variant in row["variants"]
                for setting, value in variant["settings"].items()
            )
        ),
    }


PAGES = (
    Page(
        name="admin_policies", path="/admin/policies", show=show, template="policies.jinja2", entry="Policies"
    ),
    *trying.PAGES,
    *shadows.PAGES,
)
