"""The rows of files that hold the features of a task's examples, in the place of decoded clips."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from evalkit.api import Example, Task, Views
from evalkit.errors import UserError, counted
from evalkit.features.exchange.manifest import MANIFEST
from evalkit.features.exchange.module import FeatureFiles
from evalkit.features.sources import parts
from evalkit.video.clips import Decoded, Failure, Request

logger = logging.getLogger("evalkit")

SAME_S = 1e-3  # seconds by which spans may differ that are the same
SPLITS = ("train", "val", "test")

_Span = tuple[float, float] | None
_Row = tuple[_Span, int, int]  # its span, its view, its number


class StoredRows:
    """A `DecodePool` that decodes nothing: the clips of a part of a video are the numbers of its rows (V,).

    Args:
        features: the files.
        places: the rows of each part of a video, one a view, or why there are none.
        videos: those of which there are features, or that could not be decoded when these were made.
    """

    stored = True

    def __init__(
        self,
        features: FeatureFiles,
        places: Mapping[tuple[Path, _Span], Sequence[int] | str],
        videos: frozenset[Path],
    ) -> None:
        self._features, self._places, self._videos = features, places, videos

    def read(self, requests: Sequence[Request]) -> Iterator[Decoded | Failure]:
        """The rows of each request, in order; a failure where there are none, or one holds NaN or infinity."""
        for request in requests:
            spans: Sequence[_Span] = request.windows or (request.span,)
            yield self._of([self._places[request.video, span] for span in spans])

    def _of(self, found: Sequence[Sequence[int] | str]) -> Decoded | Failure:
        rows: list[int] = []
        for of_part in found:
            if isinstance(of_part, str):
                return Failure(of_part)
            for row in of_part:
                table, place = self._features.at(row)
                if not all(bool(table.read(part, [place]).isfinite().all()) for part in table.arrays):
                    return Failure(f"{table.file.name}, row {place}: NaN or infinity")
            rows += of_part
        return Decoded(torch.tensor(rows), ((),) * len(found), "none", True)

    def exists(self, video: Path) -> bool:
        """Whether the video was there when the features were made."""
        return video in self._videos

    def close(self) -> None:
        """Nothing is open."""


def stored_rows(features: FeatureFiles, task: Task, name: str, views: Views) -> StoredRows:
    """Finds the features of each part of a video that a task's examples need.

    Ids that are none of the task's are counted and told. What two examples ask about together, a part of a video, is
    served by the rows of either.

    Args:
        features: the files.
        task: whose examples they are of.
        name: of the task, with `@mini` where its miniature is used.
        views: resolved.

    Raises:
        UserError: the files were made for something else, a row appears twice, or an example has other views or
            another span than the task's.
    """
    _check_manifest(features, task, name, views)
    of_ids = _by_id(features)
    failures = _failures(features.manifest)
    examples = {split: getattr(task, split) for split in SPLITS}
    known = {(split, example.id) for split in SPLITS for example in examples[split]}
    if others := [key for key in of_ids if key not in known]:
        features.other_ids = len(others)
        split, id = others[0]
        logger.warning(f"{features}: {counted(len(others), 'id')} that the task does not have, first {id!r} of {split}")
    places: dict[tuple[Path, _Span], Sequence[int] | str] = {}
    there: set[Path] = set()
    missing: list[str] = []
    for split in SPLITS:
        for example in examples[split]:
            rows = of_ids.get((split, example.id), [])
            failure = failures.get((split, example.id))
            reason = failure.reason if failure else f"no features of it in {features.folder.name}"
            if rows or (failure and not failure.missing):
                there.add(example.video)
            for source in parts(example, views):
                of_part = _of_part(features, example, rows, source.span, views)
                if of_part or (source.video, source.span) not in places:
                    places[source.video, source.span] = of_part or reason
            if split == "test" and not rows and not failure:
                missing.append(example.id)
    if missing and not any((split, example.id) in of_ids for split, some in examples.items() for example in some):
        held = next(iter(of_ids))[1]
        raise UserError(
            f"{features}: no id there is one of task {name}, whose ids are like {missing[0]!r}; it has {held!r}"
        )
    if missing:
        count = f"{len(missing):,} of {len(task.test):,} test examples have no features there"
        logger.warning(
            f"{features}: {count}, and count as wrong unless another asks about the same video: {missing[0]!r}"
        )
    return StoredRows(features, places, frozenset(there))


def _by_id(features: FeatureFiles) -> dict[tuple[str, str], list[_Row]]:
    """The rows of each example, by split and id."""
    of_ids: dict[tuple[str, str], list[_Row]] = {}
    seen: dict[tuple[str, str, _Span, int], str] = {}
    for table, start in zip(features.tables, features.starts, strict=True):
        spans = [None] * len(table.ids) if table.spans is None else [*map(_span, table.spans.tolist())]
        views = [0] * len(table.ids) if table.views is None else table.views.tolist()
        for entry, (id, span, view) in enumerate(zip(table.ids, spans, views, strict=True)):
            where = f"{table.file.name}, row {entry}"
            before = seen.setdefault((table.split, id, span, view), where)
            if before != where:
                advice = "" if table.views is not None else "; `views` (0, 1, ...) tells several views of one apart"
                if not before.startswith(f"{table.file.name}, "):
                    advice = f"; all files of a split are read as its parts: remove those that do not belong{advice}"
                raise UserError(f"{table.file}, row {entry}: id {id!r} appears twice, first in {before}{advice}")
            of_ids.setdefault((table.split, id), []).append((span, view, start + int(table.rows[entry])))
    return of_ids


def _span(span: Sequence[float]) -> _Span:
    start, end = span
    return None if math.isnan(start) else (start, end)


def _of_part(features: FeatureFiles, example: Example, rows: Sequence[_Row], span: _Span, views: Views) -> list[int]:
    """The rows of a part of a video, its views in order; none where there are none.

    Raises:
        UserError: there are rows of other spans, where the example is of one, or not one for each view.
    """
    found = [row for row in rows if row[0] is None or (span is not None and _same(row[0], span))]
    if views.window and any(row[0] is None for row in rows):
        raise UserError(f"{features}: example {example.id!r} is a sequence of windows: `spans` says which row is which")
    if rows and not found and not views.window:
        shown, wanted = (f"{one[0]:g} to {one[1]:g} s" if one else "the whole video" for one in (rows[0][0], span))
        raise UserError(f"{_where(features, rows[0])}: its span is {shown}, that of example {example.id!r} {wanted}")
    if not found:
        return []
    numbers, count = sorted(view for _, view, _ in found), views.clips * views.crops
    if numbers != [*range(count)]:
        raise UserError(
            f"{_where(features, found[0])}: example {example.id!r} has views {numbers}; clip.clips={views.clips} "
            f"clip.crops={views.crops} are {count} of each: change these where others are meant"
        )
    return [number for _, _, number in sorted(found, key=lambda row: row[1])]


def _same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return bool(np.abs(np.subtract(one, other)).max() <= SAME_S)


def _where(features: FeatureFiles, row: _Row) -> str:
    table, place = features.at(row[2])
    return f"{table.file}, row {place}"


def _check_manifest(features: FeatureFiles, task: Task, name: str, views: Views) -> None:
    """Raises UserError where the maker says that the features are of another task, split or clip than this run's."""
    of_task, of_views = (features.manifest.get(part) or {} for part in ("task", "views"))
    file = features.folder / MANIFEST
    run: dict[str, Any] = {"name": name, "version": task.version, "split": task.split, "fold": task.fold}
    for key, value in run.items():
        if of_task.get(key) not in (None, value):
            raise UserError(f"{file}: made for a task of {key} {of_task[key]}; this run's is {value}")
    for key, value in asdict(views).items():
        if of_views.get(key, value) != value:
            raise UserError(
                f"{file}: the features were made with clip.{key}={of_views[key]}; this run has {value}: make "
                f"others, or leave out clip.{key}"
            )


class _Failed(NamedTuple):
    """Why there are no features of an example, and whether its video was not there at all."""

    reason: str
    missing: bool


def _failures(manifest: Mapping[str, Any]) -> dict[tuple[str, str], _Failed]:
    """The examples without features, by split and id, as the maker says."""
    return {
        (of["split"], of["id"]): _Failed(
            of.get("reason") or "its maker has no features of it", of.get("missing") is True
        )
        for of in manifest.get("failures") or ()
    }
