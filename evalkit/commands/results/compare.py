"""`evalkit compare A B ...`: is one run better than another on the same examples?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from evalkit.errors import UserError, counted, suggest
from evalkit.metrics.significance import holm
from evalkit.results.compare import SHOWN, compare_runs, require_valid
from evalkit.results.run_folder import below, refuse_commas
from evalkit.results.scores import lower_is_better, task_files
from evalkit.results.table import columns, decimal, first, interval


def main(words: Sequence[str]) -> int:
    """0, after `report` was printed."""
    print(report(words))
    return 0


def report(words: Sequence[str]) -> str:
    """What `evalkit compare A B ... [all=true] [task=FILE.py]` prints: each B beside A.

    Raises:
        UserError: fewer than two runs are named, or as `compare`.
    """
    words, files = task_files(words)
    paths = [Path(word) for word in words if word not in ("all=true", "all=false")]
    for path in paths:
        if "=" in path.name and not path.exists():
            raise UserError(f"compare takes runs and all=true, got {path}.{suggest(str(path), ['all=true'])}")
    refuse_commas("compare", paths)
    if len(paths) < 2:
        there = below(paths[0]) if paths else ""
        raise UserError(f"compare takes two or more runs, got {' '.join(words) or 'nothing'}{there}")
    a, *others = paths
    checked = {run: require_valid(run, files) for run in paths}
    for one, other in combinations(paths, 2):
        if checked[one].record == checked[other].record:
            raise UserError(f"{one} and {other} are the same run: nothing to compare; name two different runs")
    comparisons = [compare_runs((a, b), (checked[a], checked[b])) for b in others]
    p_values = ([difference.p for difference in comparison.differences] for comparison in comparisons)
    together = [holm(p) for p in zip(*p_values, strict=True)]
    task = checked[a].record["task"]
    lines = [
        f"{task['name']}, {task['split']}: {counted(comparisons[0].n, 'sample')} of "
        f"{counted(comparisons[0].n_clusters, 'video')}",
        f"A  {_run(a, checked[a].record)}",
    ]
    for k, (b, comparison) in enumerate(zip(others, comparisons, strict=True)):
        lines += [f"B  {_run(b, checked[b].record)}", *(f"protocol differs in {line}" for line in comparison.apart), ""]
        rows = [("", "A", "B", "B - A", "95 % interval", "p", *(["p of all (Holm)"] if len(comparisons) > 1 else []))]
        for (metric, value_a, value_b, better, low, high, p), adjusted in zip(
            comparison.differences, together, strict=True
        ):
            cells = (decimal(value_a), decimal(value_b), decimal(better, "+"), interval((low, high), "+"), _p(p))
            label = f"{metric}, less is better" if lower_is_better(metric) else metric
            rows.append((label, *cells, *([_p(adjusted[k])] if len(comparisons) > 1 else [])))
        lines += [columns(rows), ""]
        for name, ids in comparison.changed.items():
            shown = first(ids, len(ids) if "all=true" in words else SHOWN)
            lines.append(f"{comparison.by} {name}: {len(ids):,}" + (f"  ({shown})" if ids else ""))
        if not comparison.by:
            lines.append("no metric is of single samples, so none is said to have changed")
        lines.append("")
    return "\n".join(lines[:-1])


def _run(run: Path, record: Mapping[str, Any]) -> str:
    failed = record["data"]["n_failed"]
    line = f"{run}  {record['encoder']['name']}, {record['adapter']['name']}"
    return line + (f", {counted(failed, 'sample')} failed, counted as wrong" if failed else "")


def _p(number: float) -> str:
    return "-" if math.isnan(number) else "< 0.001" if number < 0.001 else f"{number:.3f}"
