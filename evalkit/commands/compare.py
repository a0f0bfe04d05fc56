"""`evalkit compare A B ...`: is one run better than another on the same examples?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import UserError, suggest
from evalkit.metrics.significance import holm
from evalkit.results.compare import SHOWN, compare_runs, require_valid
from evalkit.results.scores import lower_is_better, task_files
from evalkit.results.table import columns, first


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
    if len(paths) < 2:
        raise UserError(f"compare takes two or more runs, got {' '.join(words) or 'nothing'}")
    a, *others = paths
    known = {run: require_valid(run, files) for run in paths}
    found = [compare_runs((a, b), (known[a], known[b])) for b in others]
    together = [holm(p) for p in zip(*([one.p for one in own.differences] for own in found), strict=True)]
    task = known[a].record["task"]
    lines = [
        f"{task['name']}, {task['split']}: {found[0].n:,} samples of {found[0].n_clusters:,} videos",
        f"A  {_run(a, known[a].record)}",
    ]
    for k, (b, own) in enumerate(zip(others, found, strict=True)):
        lines += [f"B  {_run(b, known[b].record)}", *(f"protocol differs in {line}" for line in own.apart), ""]
        rows = [("", "A", "B", "B - A", "95 % interval", "p", *(["p of all (Holm)"] if len(found) > 1 else []))]
        for one, adjusted in zip(own.differences, together, strict=True):
            span = "-" if math.isnan(one.low) else f"{one.low:+.1f} to {one.high:+.1f}"
            told = [_decimal(one.a), _decimal(one.b), _decimal(one.value, "+"), span, _p(one.p)]
            metric = f"{one.metric}, less is better" if lower_is_better(one.metric) else one.metric
            rows.append((metric, *told, *([_p(adjusted[k])] if len(found) > 1 else [])))
        lines += [columns(rows), ""]
        for name, ids in own.changed.items():
            shown = first(ids, len(ids) if "all=true" in words else SHOWN)
            lines.append(f"{own.by} {name}: {len(ids):,}" + (f"  ({shown})" if ids else ""))
        if not own.by:
            lines.append("no metric is of single samples, so none is said to have changed")
        lines.append("")
    return "\n".join(lines[:-1])


def _run(run: Path, record: Mapping[str, Any]) -> str:
    failed = record["data"]["n_failed"]
    told = f"{run}  {record['encoder']['name']}, {record['adapter']['name']}"
    return told + (f", {failed:,} samples failed, counted as wrong" if failed else "")


def _decimal(number: float, sign: str = "") -> str:
    return "-" if math.isnan(number) else f"{float(number):{sign}.1f}"


def _p(number: float) -> str:
    return "-" if math.isnan(number) else "< 0.001" if number < 0.001 else f"{number:.3f}"
