"""What hatchling adds to a wheel: the folders at the top of the repository, as evalkit.tasks, evalkit.adapters, ..."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("tasks", "adapters", "configs", "leaderboard")


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Includes the folders in a wheel; an editable install finds them in the checkout, and copies would go stale."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"].update({folder: f"evalkit/{folder}" for folder in FOLDERS})
