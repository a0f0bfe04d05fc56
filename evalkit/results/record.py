"""The record of a run, as result.json holds it, from plain parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from evalkit.api import Task
from evalkit.results import run_folder
from evalkit.results.rows import Row, tally
from evalkit.results.sizes import SPLITS, published_size, size_differences


def record(
    task: Task,
    rows: Sequence[Row],
    *,
    name: str,
    score: str,
    quick_score: str | None,
    protocol: Mapping[str, Any],
    encoder: Mapping[str, Any],
    adapter: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    controls: Sequence[Mapping[str, Any]],
    selection: Mapping[str, Any] | None,
    cost: Mapping[str, Any],
    provenance: Mapping[str, Any],
    fitted: bool = False,
    shared: Mapping[str, Any] = MappingProxyType({}),
    expect: int | None = None,
) -> dict[str, Any]:
    """The values of result.json, in its shape (result.schema.json).

    Args:
        task: that was run.
        rows: of its test examples.
        name: of the task, with `@mini` where its miniature was used.
        score: reference of its score function.
        quick_score: reference of the one that controls and val were scored with; None where it is the same.
        protocol: everything that decides the meaning of the scores.
        encoder: name, ckpt, sha256, architecture, clip, parameters, settings and canary.
        adapter: name, settings, trainable_parameters, and trainable_flops and language_model where it has them.
        scores: of the rows, the headline first.
        controls: name, metric and value of each.
        selection: how grid point and epoch were chosen; None where nothing was fitted.
        cost: seconds, counts and bytes.
        provenance: command, versions, machine and times.
        fitted: whether the task's train and val were used.
        shared: test videos that these have, too: how many, and the first of them.
        expect: test examples that the user says are meant; None where the published number is.
    """
    counts = tally(rows)
    differences = size_differences(task, SPLITS if fitted else ("test",))
    whole = not counts["n_failed"] and (not differences or expect is not None)
    return {
        "schema": 1,
        "status": "complete" if whole else "partial" if counts["n_scored"] else "failed",
        "task": {
            "name": name,
            "version": task.version,
            "split": task.split,
            **({"fold": task.fold} if task.fold else {}),
            "score": score,
            "quick_score": quick_score,
            "protocol": protocol,
            "published": dict(task.published),
        },
        "encoder": encoder,
        "adapter": adapter,
        "data": {
            "fingerprint": run_folder.fingerprint(task.test),
            "published_size": published_size(task, "test"),
            **({"size_differences": differences} if differences else {}),
            **({"expect": expect} if expect is not None else {}),
            **({"shared_videos": shared} if shared else {}),
            **counts,
        },
        "scores": scores,
        "chance": task.chance,
        "controls": controls,
        "selection": selection,
        "cost": cost,
        "provenance": provenance,
    }
