"""Suites: a paper's tasks and settings, read from configs/suites/NAME.yaml or a file of your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.config import named
from evalkit.datasets import published
from evalkit.errors import UserError
from evalkit.results.sizes import different_sets


@dataclass(frozen=True)
class Suite:
    """One file of configs/suites/.

    Attributes:
        cells: lines of overrides by the adaptation under which papers publish the numbers: frozen, zero-shot, ...
        rows: by preset, the published rows of the same encoder; the first that a task has is taken.
        sizes: rows for any other encoder, by the largest number of parameters, in millions, ascending.
        mean: `stratified` for VideoGLUE's mean over its groups of tasks, of each adaptation; empty for none.
    """

    cells: Mapping[str, Sequence[str]]
    rows: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sizes: Mapping[int, Sequence[str]] = field(default_factory=dict)
    mean: str = ""

    def nearest(self, ckpt: str, parameters: int) -> Sequence[str]:
        """Published rows of the same encoder, else of its size."""
        if ckpt in self.rows:
            return self.rows[ckpt]
        return next((rows for millions, rows in self.sizes.items() if parameters <= millions * 1e6), ())


def suites() -> dict[str, Path]:
    """The files in configs/suites/ by name."""
    return named.files("suites")


def read(name: str) -> Suite:
    """The suite of this name, or in this file.

    Raises:
        UserError: there is none.
    """
    import yaml

    file = named.find("suites", name, f"suite={name}")
    try:
        return Suite(**named.values(file))
    except (TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{file} is not a suite: {why}; wanted cells, and rows, sizes") from error


def nearest_published(suite: Suite, adaptation: str, record: Mapping[str, Any]) -> tuple[str, str]:
    """The published number of the nearest encoder that has one on this task, and its name.

    Empty for a miniature, and for a score that depends on the other examples of the test.

    Rows of the same encoder go before those of its size, which stand where it has none in print.
    Where the run's splits have another size than published, the number is marked by `*`, and the name says so.
    """
    task, encoder = record["task"], record["encoder"]
    if task["name"].endswith("@mini") or task.get("protocol", {}).get("transductive"):
        return "", ""
    protocol = task.get("protocol", {}).get("name") or ""
    known = published.rows(task["name"], record["scores"][0]["metric"], adaptation, task["split"], protocol)
    number, row = nearest_row(suite, encoder, known)
    if row and (differences := record.get("data", {}).get("size_differences")):
        return f"{number} *", f"{row} (* {different_sets(differences)}: see its run)"
    return number, row


def nearest_row(suite: Suite, encoder: Mapping[str, Any], known: Mapping[str, float]) -> tuple[str, str]:
    """Of published numbers by row, that of the same encoder, else of its size, and the row; empty for none.

    Args:
        suite: names the rows.
        encoder: as a record has it.
        known: the numbers.
    """
    rows = (*suite.nearest(encoder["ckpt"], encoder["parameters"]), *suite.nearest("", encoder["parameters"]))
    row = next((row for row in rows if row in known), "")
    return (f"{known[row]:.1f}", row) if row else ("", "")
