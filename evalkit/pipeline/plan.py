"""What a run would read, store and take, before it is begun: counts of its data, and times measured on a sample."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TextIO

import torch
from torch import Tensor

from evalkit.api import Example, FeatureSpec, Prediction
from evalkit.config.config import Config
from evalkit.errors import UserError
from evalkit.features import place
from evalkit.features.batches import InMemoryFeatures
from evalkit.features.codec import pack
from evalkit.features.extract import Variant, unchanged
from evalkit.features.sources import Source, sources
from evalkit.heads.adapter import Adapter
from evalkit.pipeline import preflight
from evalkit.pipeline.controls import controls_of, pixel_variants
from evalkit.pipeline.rates import Rates, Reading, measure, seconds_of
from evalkit.pipeline.setup import Experiment, prepare
from evalkit.pipeline.task_data import video_places
from evalkit.pipeline.training import examples, trainer
from evalkit.pipeline.training.examples import Examples
from evalkit.pipeline.training.fit import training_examples, training_sources
from evalkit.pipeline.training.trainer import TrainSpec
from evalkit.results import scores
from evalkit.results.rows import Row
from evalkit.runtime import notes
from evalkit.runtime.progress import is_terminal, phase
from evalkit.video.media import exists

LOOKED_UP = 1_000  # parts whose keys are looked up, to tell which share of all is stored
SAMPLE = 256  # parts at most that they are measured on
STEPS = 8  # training steps of an epoch that fitting is measured on, at most
LONG = 2_000  # parts left to encode from which on a run says what it is about to do
SCORED = 2_000  # examples that scoring is measured on, at most
_PLAIN: Mapping[str, Variant] = {"": unchanged}


@dataclass(frozen=True)
class Plan:
    """What a run would take.

    Attributes:
        readings: what is read of the videos that are there.
        rates: None where no part of the sample decodes, or a split that is needed has no video.
        phases: seconds by name, in order; those of nothing are left out.
        limit: bytes that the store may take; None where features are not stored.
        memory: bytes that features may take in memory while an adapter is fitted.
        bound: what takes most of the time: a phase; of those that encode, `decode`, `encode` or `reading the store`.
        missing: by split, how many examples are not counted since their videos are not there, and of how many.
    """

    readings: list[Reading]
    rates: Rates | None
    phases: dict[str, float]
    limit: int | None
    memory: int
    bound: str
    missing: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """From the command's first moment to its last."""
        return sum(self.phases.values())


class _Splits(NamedTuple):
    """Examples to train on and to choose on, of which there are none where nothing is fitted, and to test on."""

    train: Sequence[Example]
    val: Sequence[Example]
    test: Sequence[Example]


class _Needed(NamedTuple):
    """Sources that are read for a split, the part of the encoder's output that is kept, and what is done to the clips.

    Attributes:
        spec: None for an adapter that trains the encoder and reads the video itself.
    """

    name: str
    spec: FeatureSpec | None
    wanted: list[Source]
    variants: Mapping[str, Variant]


def plan(config: Config) -> Plan:
    """Reads the task's data as a run does, and measures each phase on a sample; writes no result.

    Raises:
        UserError: as a run would before it encodes anything.
    """
    with prepare(config) as experiment:
        phases = {"start": time.process_time()}  # mostly imports
        preflight.check_run(experiment, config.options, config.trainer, video_places(config))
        if config.options.canary and not experiment.retuned:
            phases["canary"] = seconds_of(lambda: preflight.check_encoder(experiment, config))
        return _plan(experiment, config, phases)


class Outlook(NamedTuple):
    """What a long run is about to do.

    Attributes:
        line: in words.
        instead: how to encode once, where each epoch would encode anew; else empty.
    """

    line: str
    instead: str = ""


def confirm(outlook: Outlook, stdin: TextIO | None, stderr: TextIO | None) -> None:
    """Asks whether to go on where each epoch will encode anew: at a terminal the user, elsewhere for `confirm=true`.

    Raises:
        UserError: the answer is no, or nobody can be asked.
    """
    mend = f"confirm=true goes on all the same, and {outlook.instead}"
    if not (is_terminal(stdin) and is_terminal(stderr)):
        raise UserError(f"nothing was begun, since each epoch would encode the videos again: {outlook.line}; {mend}")
    assert stdin is not None and stderr is not None
    print(f"Each epoch will encode the videos again; {outlook.instead}. Go on? [y/N]", file=stderr, flush=True)
    if stdin.readline().strip().casefold() not in ("y", "yes"):
        raise UserError(f"nothing was begun; {mend}")


def outlook(experiment: Experiment, config: Config, controls: Sequence[str]) -> Outlook | None:
    """What a long run is about to encode, store and take; None of a short one, which shows it soon.

    Args:
        experiment: that is to be run.
        config: of the run.
        controls: that the run scores.
    """
    if experiment.stored or experiment.ranks.size > 1:  # whose decoding processes have a part of the cores each
        return None
    cache, rng = experiment.reader.cache, random.Random(config.options.seed)
    splits = _splits(experiment, config)
    needed = _needed(experiment, config, splits, controls)
    if sum(len(of_split.wanted) for of_split in needed) < LONG:  # before any file is looked at
        return None
    splits = _present(experiment, splits)
    needed = _needed(experiment, config, splits, controls)
    parts_ = sum(len(of_split.wanted) * (1 - _stored(experiment, of_split, rng)) for of_split in needed)
    if parts_ < LONG:
        return None
    sample = _sample(needed, rng)
    _make_films(experiment, splits, sample)
    pixels, rates = measure(experiment, sample)
    if rates is None:
        return None
    rows = {of.spec: _rows(experiment, of.spec, pixels[:1]) for of in needed}
    readings = _readings(experiment, needed, rows, rng)
    seconds = sum(rates.seconds(reading, 1, 1, experiment.device.type != "cpu") for reading in readings)
    limit = f" of {cache.store.limit / 1e9:.0f} GB" if cache and cache.store.limit else ""
    first, again, instead = needed[0], "", ""
    if readings[0].times > 1:
        again = f", and each epoch encodes {readings[0].name} again"
        if first.spec:  # else the adapter trains the encoder, and there is nothing that could be stored
            row, spec = rows[first.spec][0].contiguous(), first.spec if cache else None
            instead = place.instead(row, len(first.wanted), spec, place.room(cache), experiment.reader.saving)
    return Outlook(
        f"to encode: {parts_:,.0f} parts of videos, about {seconds / 3_600:.1f} h on this device; their features take "
        f"{sum(reading.bytes for reading in readings) / 1e9:.3g} GB{limit}{again} (evalkit plan says more)",
        instead,
    )


def _plan(experiment: Experiment, config: Config, phases: dict[str, float]) -> Plan:
    options, cache, rng = config.options, experiment.reader.cache, random.Random(config.options.seed)
    every = _splits(experiment, config)
    splits = _present(experiment, every)
    controls = controls_of(experiment) if options.controls else []
    needed = _needed(experiment, config, splits, controls)
    sample = _sample(needed, rng)
    phases["make films"] = _make_films(experiment, splits, sample)
    complete = splits.test and (not experiment.needs_fit or (splits.train and splits.val))
    pixels, rates = measure(experiment, sample) if complete else ([], None)
    rows = {of_split.spec: _rows(experiment, of_split.spec, pixels) for of_split in needed} if pixels else {}
    readings = _readings(experiment, needed, rows, rng)
    on_gpu = experiment.device.type != "cpu"
    decode = encode = read = 0.0
    for reading in readings:
        if rates is None:
            break
        phases[f"encode {reading.name}"] = rates.seconds(reading, options.devices, options.nodes, on_gpu)
        decode += reading.left * rates.decode_s / options.nodes
        encode += reading.left * rates.encode_s * reading.clips / options.nodes / (options.devices if on_gpu else 1)
        read += reading.from_store * rates.stored_s / options.nodes
    if rows:
        with notes.on_stderr(False):
            phases |= _fit_predict_score(experiment, splits, controls, rows, config)
    phases = {name: seconds for name, seconds in phases.items() if seconds}
    bound = _bound(phases, {"decode": decode, "encode": encode, "reading the store": read})
    missing = {
        name: (len(all_) - len(there), len(all_))
        for name, all_, there in zip(every._fields, every, splits, strict=True)
        if len(there) < len(all_)
    }
    limit = cache.store.limit if cache else None
    return Plan(readings, rates, phases, limit, place.room(cache).memory, bound, missing)


def _bound(phases: Mapping[str, float], encoding: Mapping[str, float]) -> str:
    """The name of what takes most: a phase, or where that encodes, one of the parts of this."""
    others = {name: seconds for name, seconds in phases.items() if not name.startswith("encode ")}
    return max({**others, **encoding}.items(), key=lambda named: named[1])[0]


def _sample(needed: Sequence[_Needed], rng: random.Random) -> list[Source]:
    every = [source for of_split in needed for source in of_split.wanted]
    return rng.sample(every, min(len(every), SAMPLE))


def _splits(experiment: Experiment, config: Config) -> _Splits:
    options = config.options
    train, val = training_examples(experiment, config.trainer, options.seed) if experiment.needs_fit else ([], [])
    return _Splits(train, val, experiment.task.test)


def _present(experiment: Experiment, splits: _Splits) -> _Splits:
    """The examples whose videos are there; films that the task makes are made later."""
    if experiment.task.prepare_videos:
        return splits
    exists = functools.cache(experiment.extractor.pool.exists)  # of a video with many examples once
    with phase("look for the videos"):
        return _Splits(*([example for example in split if exists(example.video)] for split in splits))


def _needed(experiment: Experiment, config: Config, splits: _Splits, controls: Sequence[str]) -> list[_Needed]:
    """The sources to read, split by split; features shared by several grid points appear once."""
    train, val, test = splits
    sampling, video = experiment.extractor.views, experiment.adapter.trains_encoder
    needed = []
    if train:
        for spec, of_train, of_val in training_sources(experiment, train, val, config.options.seed):
            kept = None if video else spec
            needed += [_Needed("train", kept, of_train, _PLAIN), _Needed("val", kept, of_val, _PLAIN)]
    variants = {**_PLAIN, **pixel_variants(controls, sampling)}
    wanted = sources(test, sampling)
    return [*needed, _Needed("test", experiment.adapter.feature_spec, wanted, variants)]


def _make_films(experiment: Experiment, splits: _Splits, sample: Sequence[Source]) -> float:
    """Seconds that making all films will take that are not there, by those of the sample, which are made."""
    if not experiment.task.prepare_videos:
        return 0.0
    first = {example.video: example for split in splits for example in split}
    missing = [video for video in first if not exists(video)]
    chosen = [first[video] for video in dict.fromkeys(source.video for source in sample)]
    made = [example for example in chosen if not exists(example.video)]
    seconds = seconds_of(lambda: experiment.task.prepare_videos(chosen))  # type: ignore[misc]
    return seconds * (len(missing) - len(made)) / max(1, len(made))


def _rows(experiment: Experiment, spec: FeatureSpec | None, pixels: Sequence[Tensor]) -> Tensor:
    """The features of each part of the sample, (n, V, ...); the pixels if the encoder is trained.

    V is the fewest views of any part: an augmented one for training has one, where the test's has all crops and clips.
    """
    fewest = min(map(len, pixels))
    pixels = [part[:fewest] for part in pixels]
    if spec is None:
        return torch.stack([*pixels])
    reader, batch = experiment.reader.reads(spec), max(1, experiment.extractor.batch // len(pixels[0]))
    chunks = [torch.cat([*pixels[start : start + batch]]) for start in range(0, len(pixels), batch)]
    rows = torch.cat([reader.keep(chunk).cpu() for chunk in chunks])
    return rows.view(len(pixels), -1, *rows.shape[1:])


def _stored(experiment: Experiment, needed: _Needed, rng: random.Random) -> float:
    """The share of the sources whose features are stored, by a sample."""
    if needed.spec is None or not experiment.reader.cache:
        return 0.0
    cache = experiment.reader.cache.keeping(needed.spec)
    some = rng.sample(needed.wanted, min(len(needed.wanted), LOOKED_UP))
    return sum(map(cache.holds, cache.keys(some, needed.variants))) / max(1, len(some))


def _readings(
    experiment: Experiment, needed: Sequence[_Needed], rows: Mapping[FeatureSpec | None, Tensor], rng: random.Random
) -> list[Reading]:
    """What is read for each split, and how much of it is stored."""
    views, cache = experiment.extractor.views, experiment.reader.cache
    room, readings = place.room(cache), []
    for name, spec, wanted, variants in needed:
        size, times, again = 0, 1, 0
        of_part = 1 if wanted and wanted[0].look else views.clips * views.crops
        if spec in rows:
            row = rows[spec][0]
            row = row.repeat(-(-of_part // len(row)), *[1] * (row.ndim - 1))[:of_part].contiguous()
            size = pack(row, spec.layout if spec else "given")[0].nbytes * len(wanted) * len(variants)
            where = "memory" if name == "test" else room.place(row, len(wanted), spec if cache else None)
            times = max(1, experiment.adapter.epochs) if where == "videos" else 1
            again = experiment.adapter.epochs if where == "store" else 0
        stored = _stored(experiment, _Needed(name, spec, wanted, variants), rng)
        readings.append(Reading(name, len(wanted), of_part * len(variants), stored, size, times, again))
    return readings


def _fit_predict_score(
    experiment: Experiment,
    splits: _Splits,
    controls: Sequence[str],
    rows: Mapping[FeatureSpec | None, Tensor],
    config: Config,
) -> dict[str, float]:
    """Seconds of fitting, of predicting test with its controls, and of scoring; measured on the sample's features."""
    task, options = experiment.task, config.options
    adapter, seconds = experiment.adapter, {}
    if experiment.needs_fit:
        adapter, seconds["fit"] = _fit(experiment, splits, rows, config)
    keep = experiment.reader.keep if adapter.trains_encoder else None
    of_test = rows[None if adapter.trains_encoder else adapter.feature_spec]
    count = min(len(splits.test), len(of_test), 2 * examples.PREDICT_BATCH)
    some = _stand_in(experiment, splits.test, count, of_test)
    apart: list[Prediction] = []
    final: list[Prediction] = []
    predict_s = seconds_of(lambda: apart.extend(examples.predict_apart(adapter, some, keep)[0]))
    with torch.inference_mode():
        finalize_s = seconds_of(lambda: final.extend(adapter.finalize(some.examples, apart)))
    # Of all examples together, by one process; a value of option_order is final.
    finalize_s *= adapter.finalize_steps(splits.test) / adapter.finalize_steps(some.examples)
    finalized = 1 + len(set(controls) - {"option_order"})
    orders = max((len(example.choices) for example in task.test), default=0)
    asked = 1 + len(controls) + (orders - 2 if "option_order" in controls else 0)
    devices = options.devices * options.nodes if experiment.device.type != "cpu" else options.nodes
    seconds["predict"] = predict_s / count * len(splits.test) * asked / devices + finalize_s * finalized
    scored = task.test[:SCORED]
    rows_ = [Row(e.id, str(e.video), e.kind, e.target, final[k % len(final)].value) for k, e in enumerate(scored)]
    measured = seconds_of(lambda: scores.scores(task.score, rows_, options.seed))
    seconds["score"] = measured * len(task.test) / len(scored)
    return seconds


def _fit(
    experiment: Experiment, splits: _Splits, rows: Mapping[FeatureSpec | None, Tensor], config: Config
) -> tuple[Adapter, float]:
    """An adapter that was fitted on the sample, and the seconds that fitting will take of all grid points."""
    train, val, _ = splits
    spec = TrainSpec(experiment.device, config.options.seed, config.trainer.precision, config.trainer.max_minutes)
    score = experiment.task.quick_score or experiment.task.score
    fitted: Adapter = experiment.adapter
    total = 0.0
    for places in experiment.passes:
        points = [experiment.points[k] for k in places]

        def timed(epochs: int, count: int, points: Sequence[Mapping[str, Any]] = points) -> float:
            nonlocal fitted
            limited = [{**point, "epochs": epochs} if "epochs" in point else point for point in points]
            fitted = experiment.build(limited).to(experiment.device)
            of_pass = rows[None if fitted.trains_encoder else fitted.feature_spec]
            keep = experiment.reader.reads(fitted.feature_spec).keep if fitted.trains_encoder else None
            some = _stand_in(experiment, train, count, of_pass)
            to_choose = _stand_in(experiment, val, max(1, len(val) * count // len(train)), of_pass)
            return seconds_of(lambda: trainer.fit(fitted, some, to_choose, score, spec, keep))

        adapter = experiment.build(points)
        few = min(len(train), max(64, STEPS * adapter.batch_size))
        share = len(train) / few
        if adapter.closed_form:
            half = timed(1, max(1, few // 2)) if share > 1 else 0.0
            whole = timed(1, few)
            total += whole + (share - 1) * max(0.0, 2 * (whole - half))
        else:
            one, three = timed(1, few), timed(3, few)
            epoch = max(0.0, three - one) / 2
            total += one + (adapter.epochs * share - 1) * epoch
    limit = config.trainer.max_minutes * 60
    return fitted.eval(), min(total, limit) if limit else total


def _stand_in(experiment: Experiment, of_split: Sequence[Example], count: int, rows: Tensor) -> Examples:
    """The first examples, each with the features of some part of the sample."""
    sampling, chosen = experiment.extractor.views, of_split[:count]
    wanted = sources(chosen, sampling)
    index = {source: place % len(rows) for place, source in enumerate(wanted)}
    return Examples(chosen, InMemoryFeatures(rows), index, 1, sampling)
