"""Fits an adapter on training examples and keeps the grid point and the epoch that are best on val."""

from __future__ import annotations

import functools
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from evalkit.api import Example, FeatureSpec, Task
from evalkit.config.options import Trainer
from evalkit.datasets.fewshot import few_shot, share_of
from evalkit.errors import UserError, counted
from evalkit.features.batches import gather
from evalkit.features.extract import Cost, unchanged
from evalkit.features.feature_cache import SourceFeatures
from evalkit.features.sources import Source, parts, sources
from evalkit.heads.adapter import Adapter
from evalkit.pipeline.setup import Experiment
from evalkit.pipeline.training.examples import Examples
from evalkit.pipeline.training.shown import Shown
from evalkit.pipeline.training.trainer import DivergedError, TrainingCurve, TrainSpec, best_point, fit
from evalkit.runtime.ranks import ALONE
from evalkit.tracking.trackers import point_names
from evalkit.video.augment import AugmentedView, augmented_views
from evalkit.video.media import shown, unpacked
from evalkit.weights import trained_adapter

logger = logging.getLogger("evalkit")


def fit_adapter(experiment: Experiment, trainer: Trainer, seed: int) -> tuple[dict[str, Any], float]:
    """Fits every grid point on train, and leaves in the experiment the adapter that is best on val, its settings, what
    it predicts of val, and what a step of its training cost.

    Of several processes each encodes its share of the videos, into the store or, without one, for the others; then all
    fit together, each on a part of every batch, where the adapter's loss allows it, else the first one fits, and the
    others take over the adapter.

    Args:
        experiment: with an adapter that is to be fitted.
        trainer: how.
        seed: of everything random.

    Returns:
        The record of the choice, and the seconds that fitting took.

    Raises:
        UserError: as `fit` does; of grid points that diverge only where all do.
    """
    task, ranks = experiment.task, experiment.ranks
    train, val = training_examples(experiment, trainer, seed)
    if task.prepare_videos:
        task.prepare_videos([*train, *val])
    divided = ranks.size > 1 and experiment.adapter.divisible
    if ranks.size > 1 and experiment.reader.cache:
        _encode_shares(experiment, train, val, seed)
    if not ranks.first and not divided:
        if not experiment.reader.cache:  # the first gets this process's share as it reads
            deque(_passes(experiment, train, val, seed, divided), maxlen=0)
        return _take_over(experiment)
    together = ranks if divided else ALONE
    spec = TrainSpec(experiment.device, seed, trainer.precision, trainer.max_minutes, together)
    names = point_names(experiment.points)
    curves: dict[int, TrainingCurve] = {}
    chosen, best = 0, None
    val_examples: Sequence[Example] = ()  # that the best was chosen on
    counts = [0, 0]  # of train and of val, those that could be read
    seconds, origin = 0.0, ""
    for places, data, undecodable in _passes(experiment, train, val, seed, divided):
        adapter, failed = experiment.adapter, undecodable
        counts = [len(split.examples) for split in data]
        started, of_trackers = time.monotonic(), experiment.trackers.seconds
        try:
            keep = experiment.reader.keep if adapter.trains_encoder else None
            onlooker = Shown(experiment.trackers.log, [names[k] for k in places]) if experiment.trackers else None
            fitted = fit(adapter, *data, task.quick_score or task.score, replace(spec, shown=onlooker), keep)
            curves.update(zip(places, fitted.curves, strict=True))
            known = sorted(curves)
            chosen = known[best_point([curves[k] for k in known])]
            if chosen in places:
                best, val_examples, experiment.training = adapter, data[1].examples, fitted.cost
        except DivergedError as error:
            curves.update(zip(places, error.curves, strict=True))
            origin = error.origin
        del data  # its memory is given back before others are read
        seconds += time.monotonic() - started - (experiment.trackers.seconds - of_trackers)
    in_order = [curves[k] for k in range(len(experiment.points))]
    if best is None:
        raise DivergedError(in_order, origin)
    experiment.use(best, experiment.points[chosen])
    curve = in_order[chosen]
    experiment.on_val = [
        (example.id, example.target, value) for example, value in zip(val_examples, curve.predictions, strict=True)
    ]
    record = {
        "grid": [{key: value for key, value in point.items() if value != ""} for point in experiment.points],
        "chosen": {"point": chosen, "epoch": curve.best_epoch, "epochs": len(curve.val_scores)},
        "val_score": curve.best,
        "val_scores": curve.val_scores,
        "grid_val_scores": [point.best for point in in_order],
        "failures": [{"point": k, "reason": point.failure} for k, point in enumerate(in_order) if point.failure],
        "n_train": counts[0],
        "n_val": counts[1],
        "undecodable": [{"video": shown(source.source.video), "reason": source.failure} for source in failed],
    }
    if ranks.size > 1 and not divided:
        learned = trained_adapter.adapter_state(best) or best.cpu()  # a closed form may hold more than weights
        ranks.broadcast((record, seconds, chosen, learned))
        best.to(experiment.device)
    return record, seconds


def _passes(
    experiment: Experiment, train: Sequence[Example], val: Sequence[Example], seed: int, divided: bool
) -> Iterator[tuple[Sequence[int], tuple[Examples, Examples], list[SourceFeatures]]]:
    """For each pass of fitting, whose adapter is put into the experiment: the places of its grid points, train and val
    with their features, and the sources that could not be decoded.
    """
    read: Any = None  # which features of the encoder's output, and which views of train, `data` has
    data: tuple[Examples, Examples] | None = None  # of train and of val
    failed: list[SourceFeatures] = []
    for places in experiment.passes:
        points = [experiment.points[k] for k in places]
        if len(experiment.passes) > 1:
            experiment.use(experiment.build(points), points[0])
        views = _training_views(experiment, experiment.adapter, seed)
        if read != (experiment.adapter.feature_spec, views):  # mostly all points read the same
            data = None
            data, failed = _read(experiment, train, val, views, divided)
            there = {example.kind for example in data[0].examples}
            mixture = {kind: weight for kind, weight in experiment.task.mixture.items() if kind in there}
            data = replace(data[0], mixture=mixture), data[1]
            read = (experiment.adapter.feature_spec, views)
        assert data
        yield places, data, failed


def training_examples(experiment: Experiment, trainer: Trainer, seed: int) -> tuple[list[Example], list[Example]]:
    """The examples to train on and to choose on."""
    task = experiment.task
    train, val = list(task.train), list(task.val)
    # Films that the task makes are made later.
    exists: Callable[[Path], bool] = (lambda video: True) if task.prepare_videos else experiment.extractor.pool.exists
    if task.shots and not trainer.shots:
        train, val = _prescribed_shots(task, train, val, seed)
    if val and not any(exists(video) for video in dict.fromkeys(example.video for example in val)):
        raise UserError(
            f"no video of the {len(val):,} validation examples was found, the first is {shown(val[0].video)}; "
            "data.videos=FOLDER adds a folder to search"
        )
    if not val and not task.mixture:
        train, val = split_val(train, seed, exists=exists)
    known = {example.kind for example in val}
    for kind in (kind for kind in task.mixture if kind not in known):  # in order, the same in every process
        of_kind, held_out = split_val([example for example in train if example.kind == kind], seed, exists=exists)
        train = [example for example in train if example.kind != kind] + of_kind
        val += held_out
    shots = trainer.shots or task.shots
    if shots and trainer.share < 1:
        raise UserError(f"trainer.shots={shots} and trainer.share={trainer.share:g} are two sizes: give one")
    if trainer.shots:
        train = few_shot(train, task.classes, trainer.shots, seed)
        val = few_shot(val, task.classes, trainer.shots, seed, at_most=True)
    if trainer.share < 1:
        train, val = (_share(task, examples, trainer.share, seed) for examples in (train, val))
    experiment.adapter.check_examples(len(train))
    return train, val


def _share(task: Task, examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """A share of the examples of each class, of each of the data sets of a mixture."""
    if not task.mixture:
        return share_of(examples, task.classes, share, seed)
    of_kinds = [[example for example in examples if example.kind == kind] for kind in task.mixture]
    return [example for of_kind in of_kinds for example in share_of(of_kind, task.classes, share, seed)]


def _prescribed_shots(
    task: Task, train: Sequence[Example], val: Sequence[Example], seed: int
) -> tuple[list[Example], list[Example]]:
    """The prescribed number of examples per class, drawn from all of train, and one of the rest per class as val."""
    drawn = few_shot(train, task.classes, task.shots, seed, at_most=True)
    ids = {example.id for example in drawn}
    left = [example for example in val or train if example.id not in ids]
    return drawn, few_shot(left, task.classes, 1, seed, at_most=True) or drawn


def _encode_shares(experiment: Experiment, train: Sequence[Example], val: Sequence[Example], seed: int) -> None:
    """Encodes and stores this process's share of train and val, so that the first process can read everything."""
    for spec, of_train, of_val in training_sources(experiment, train, val, seed):
        reader = experiment.reader.reads(spec)
        reader.store_share([*of_train, *of_val], {"": unchanged}, experiment.ranks, "encode train and val")


def training_sources(
    experiment: Experiment, train: Sequence[Example], val: Sequence[Example], seed: int
) -> Iterator[tuple[FeatureSpec, list[Source], list[Source]]]:
    """What the grid points read: which part of the encoder's output, and of which sources of train and of val; once
    where several read the same.
    """
    sampling = experiment.extractor.views
    done = []
    for places in experiment.passes:
        adapter = experiment.adapter
        if len(experiment.passes) > 1:
            adapter = experiment.build([experiment.points[k] for k in places])
        views = _training_views(experiment, adapter, seed)
        if (adapter.feature_spec, views) in done:
            continue
        done.append((adapter.feature_spec, views))
        of_train = [source._replace(look=look) for source in sources(train, sampling) for look in views]
        yield adapter.feature_spec, of_train, sources(val, sampling)


def _take_over(experiment: Experiment) -> tuple[dict[str, Any], float]:
    """Waits for the adapter trained by the first process, and uses it."""
    nothing: tuple[dict[str, Any], float, int, dict[str, Tensor] | Adapter] = {}, 0.0, 0, {}
    record, seconds, chosen, learned = experiment.ranks.broadcast(nothing)
    settings = experiment.points[chosen]
    if isinstance(learned, Adapter):
        adapter = learned
    else:
        adapter = experiment.build([settings])
        adapter.load_adapter_state(learned)
    experiment.use(adapter.to(experiment.device).eval(), settings)
    return record, seconds


def split_val(
    examples: Sequence[Example], seed: int, share: float = 0.1, exists: Callable[[Path], bool] = lambda video: True
) -> tuple[list[Example], list[Example]]:
    """Train and val, val a seeded share of the videos: no video is in both, and none that is missing in val.

    Args:
        examples: to be split.
        seed: of the shuffle.
        share: of the videos, for val.
        exists: whether a video is there; asked of all only where one of those that would be held out is missing.

    Raises:
        UserError: no video is there, or only one, which val takes, so that none is left to learn from.
    """
    videos = sorted({example.video for example in examples}, key=lambda video: (unpacked(video), video))
    random.Random(seed).shuffle(videos)
    count = max(1, round(share * len(videos)))
    # What is missing has nothing to choose on; it stays in train, which names it.
    there = videos
    if not all(map(exists, videos[: count + 1])):
        there = [video for video in videos if exists(video)]
        count = max(1, round(share * len(there)))
        _check_there(videos, there)
    if len(there) == 1:
        raise UserError(
            f"1 of {counted(len(videos), 'training video')} was found ({shown(there[0])}), and validation takes a "
            "tenth, at least one: none is left for training. Add videos to the train split"
        )
    held_out = set(there[:count])
    train = [example for example in examples if example.video not in held_out]
    return train, [example for example in examples if example.video in held_out]


def _check_there(videos: Sequence[Path], there: Sequence[Path]) -> None:
    """Says where most of the training videos are missing.

    Raises:
        UserError: all are.
    """
    if not there:
        raise UserError(
            f"none of {counted(len(videos), 'training video')} was found, the first is {shown(min(videos))}; "
            "data.videos=FOLDER adds a folder to search"
        )
    if 2 * len(there) < len(videos):
        _warn_missing(len(there), len(videos))


@functools.cache  # said once, though several steps of a run ask
def _warn_missing(there: int, listed: int) -> None:
    logger.warning(
        f"found only {there:,} of {counted(listed, 'training video')}: the head trains on these, with a tenth held out "
        "for validation; `evalkit check` lists the missing ones, data.videos=FOLDER adds a folder to search"
    )


def _training_views(experiment: Experiment, adapter: Adapter, seed: int) -> tuple[AugmentedView | None, ...]:
    """The augmented views that an adapter is trained on; None stands for the unaugmented view."""
    augment = experiment.augment
    if not augment:
        return (None,)
    views = augment.views if adapter.closed_form else min(augment.views, max(1, adapter.epochs))
    return augmented_views(replace(augment, views=views), seed)


def _read(
    experiment: Experiment,
    train: Sequence[Example],
    val: Sequence[Example],
    views: Sequence[AugmentedView | None],
    divided: bool = False,
) -> tuple[tuple[Examples, Examples], list[SourceFeatures]]:
    """Train and val with the features that the adapter reads, and the sources that could not be decoded."""
    sampling, reader = experiment.extractor.views, experiment.reader
    ranks, cost = experiment.ranks, Cost()
    if shared := ranks.size > 1 and reader.cache:
        reader = replace(reader, extractor=replace(reader.extractor, cost=cost))
    splits = []
    failed: list[SourceFeatures] = []
    total = 0
    for name, examples, looks in (("train", train, views), ("val", val, (None,))):
        wanted = sources(examples, sampling)
        video = experiment.adapter.trains_encoder
        rows, index, undecodable = gather(reader, wanted, looks, f"encode {name}", video, ranks, divided)
        known = [e for e in examples if all(source in index for source in parts(e, sampling))]
        splits.append(Examples(known, rows, index, len(looks), sampling))
        if sampling.window:  # one of its windows speaks for a video
            first: dict[Path, SourceFeatures] = {}
            for features in undecodable:
                first.setdefault(features.source.video, features)
            undecodable = [*first.values()]
            total += len({source.video for source in wanted})
        else:
            total += len(wanted)
        failed += undecodable
    report_failures(failed, total)
    if shared:  # what was found stored or not was counted when the shares were encoded
        total_cost = experiment.extractor.cost
        total_cost += replace(cost, cache_hits=0, cache_misses=0)
    if val and not splits[1].examples:
        last = failed[-1]  # those of val come last
        count = counted(len({e.video for e in val}), "video")
        raise UserError(
            f"none of {count} to choose on could be read; {shown(last.source.video)}: "
            f"{last.failure}; repair or remove it"
        )
    return (splits[0], splits[1]), failed


def report_failures(failed: Sequence[SourceFeatures], total: int) -> None:
    """Logs which training videos were left out.

    Raises:
        UserError: all of them were, with the first reason.
    """
    if failed and len(failed) == total:
        raise UserError(
            f"none of {counted(total, 'training video')} could be read; {shown(failed[0].source.video)}: "
            f"{failed[0].failure}"
        )
    if 2 * len(failed) > total:
        logger.warning(f"MOST OF THE TRAINING VIDEOS COULD NOT BE READ ({len(failed):,} of {total:,})")
    for features in failed[:3]:
        logger.warning(f"left out of training: {shown(features.source.video)}: {features.failure}")
    if len(failed) > 3:
        logger.warning(f"left out of training: {len(failed) - 3} more")
