"""Fits an adapter on training examples and keeps the grid point and the epoch that are best on val."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from evalkit.api import Example
from evalkit.config.config import Config
from evalkit.datasets.fewshot import few_shot
from evalkit.features import extract
from evalkit.features.batches import gather
from evalkit.features.extract import Source, SourceFeatures
from evalkit.pipeline.setup import Experiment
from evalkit.pipeline.trainer import DivergedError, Examples, TrainingCurve, best_point, fit
from evalkit.video.augment import AugmentedView, augmented_views


def fit_adapter(experiment: Experiment, config: Config) -> tuple[dict[str, Any], float]:
    """Fits every grid point on train, and leaves in the parts the adapter that is best on val, and its settings.

    Returns:
        The record of the choice, and the seconds that fitting took.

    Raises:
        UserError: as `fit` does; of grid points that diverge only where all do.
    """
    train, val = list(experiment.task.train), list(experiment.task.val)
    if not val:
        train, val = split_val(train, config.options.seed)
    if shots := config.trainer.shots:
        train = few_shot(train, experiment.task.classes, shots, config.options.seed)
        val = few_shot(val, experiment.task.classes, shots, config.options.seed, at_most=True)
    if experiment.task.prepare_videos:
        experiment.task.prepare_videos([*train, *val])
    courses: dict[int, TrainingCurve] = {}
    chosen, best = 0, None
    read: Any = None  # what the features are of the encoder's output, and which views of train
    data: tuple[Examples, Examples] | None = None  # of train and of val
    seconds = 0.0
    for places in experiment.passes:
        points = [experiment.points[k] for k in places]
        if len(experiment.passes) > 1:
            experiment.use(experiment.build(points), points[0])
        adapter = experiment.adapter
        seen = _seen(experiment, config.options.seed)
        if read != (adapter.feature_spec, seen):  # mostly all points read the same
            data = None  # its memory is given back before others are read
            data, failed = _read(experiment, train, val, seen)
            read = (adapter.feature_spec, seen)
        assert data
        started = time.monotonic()
        try:
            fitted = fit(
                adapter,
                data[0],
                data[1],
                experiment.task.score,
                keep=experiment.keep if adapter.trains_encoder else None,
                epochs=adapter.epochs,
                seed=config.options.seed,
                device=experiment.device,
                precision=config.trainer.precision,
                max_minutes=config.trainer.max_minutes,
            )
            courses.update(zip(places, fitted.courses, strict=True))
            known = sorted(courses)
            chosen = known[best_point([courses[k] for k in known])]
            best = adapter if chosen in places else best
        except DivergedError as error:
            courses.update(zip(places, error.courses, strict=True))
        seconds += time.monotonic() - started
    in_order = [courses[k] for k in range(len(experiment.points))]
    if best is None:
        raise DivergedError(in_order)
    experiment.use(best, experiment.points[chosen])
    course = in_order[chosen]
    record = {
        "grid": [{key: value for key, value in point.items() if value != ""} for point in experiment.points],
        "chosen": {"point": chosen, "epoch": course.best_epoch, "epochs": len(course.val_scores)},
        "val_score": course.best,
        "val_scores": course.val_scores,
        "grid_val_scores": [one.best for one in in_order],
        "failures": [{"point": k, "reason": one.failure} for k, one in enumerate(in_order) if one.failure],
        "n_train": len(train),
        "n_val": len(val),
        "undecodable": [{"video": str(one.source.video), "reason": one.failure} for one in failed],
    }
    return record, seconds


def split_val(examples: Sequence[Example], seed: int, share: float = 0.1) -> tuple[list[Example], list[Example]]:
    """Train and val, val a seeded share of the videos: no video is in both."""
    videos = sorted({example.video for example in examples})
    random.Random(seed).shuffle(videos)
    held_out = set(videos[: max(1, round(share * len(videos)))])
    train = [example for example in examples if example.video not in held_out]
    return train, [example for example in examples if example.video in held_out]


def _seen(experiment: Experiment, seed: int) -> tuple[AugmentedView | None, ...]:
    """The augmented views that the present adapter will see of a training clip; None where it sees the plain ones."""
    if not experiment.augment:
        return (None,)
    at_once = hasattr(experiment.adapter, "solve")
    views = experiment.augment.views if at_once else min(experiment.augment.views, max(1, experiment.adapter.epochs))
    return augmented_views(replace(experiment.augment, views=views), seed)


def _read(
    experiment: Experiment, train: Sequence[Example], val: Sequence[Example], seen: Sequence[AugmentedView | None]
) -> tuple[tuple[Examples, Examples], list[SourceFeatures]]:
    """Train and val with the features that the present adapter reads, and what could not be decoded."""
    found = []
    failed: list[SourceFeatures] = []
    total = 0
    for name, examples, views in (("train", train, seen), ("val", val, (None,))):
        wanted = extract.sources(examples)
        rows, index, undecodable = gather(experiment, wanted, views, f"encode {name}")
        known = [example for example in examples if Source(example.video, example.span) in index]
        found.append(Examples(known, rows, index, len(views)))
        failed += undecodable
        total += len(wanted)
    extract.report_failures(failed, total)
    return (found[0], found[1]), failed
