"""Task fields that differ between a generated miniature and its benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LICENSE = "generated (Apache-2.0)"


def miniature(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `evalkit.api.Task` for a miniature: no published number and no size of the benchmark is about it."""
    return {**facts, "split": "mini", "sizes": {}, "published": {}, "license": LICENSE}
