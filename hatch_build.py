"""What hatchling adds to a wheel: the folders at the top of the repository, as evalkit.tasks, evalkit.adapters, ..."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("tasks", "adapters", "configs", "leaderboard")


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Includes the folders in a wheel; an editable install finds them in the checkout, and copies would go stale."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            entries = [
                entry.relative_to(self.root) for folder in FOLDERS for entry in Path(self.root, folder).iterdir()
            ]
            # What is forced knows no `exclude` of pyproject.toml, by which the source package has no results either.
            wanted = [entry.as_posix() for entry in entries if entry.name not in ("results", "__pycache__")]
            build_data["force_include"].update({name: f"evalkit/{name}" for name in wanted})
