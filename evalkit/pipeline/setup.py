"""Task, encoder and adapter of a run, made from the configuration and checked against each other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from evalkit import encoders, plugins
from evalkit.api import Augment, Clip, Encoder, FeatureSpec, Score, Task, Views
from evalkit.config.config import Config
from evalkit.config.keys import default_adapter, settings_class
from evalkit.errors import UserError, counted, one_line
from evalkit.features.exchange.module import FeatureFiles
from evalkit.features.exchange.rows import stored_rows
from evalkit.features.extract import Cost, FeatureExtractor
from evalkit.features.forward import EncoderRunner
from evalkit.features.reader import FeatureReader, open_feature_cache
from evalkit.features.sources import resolve_views
from evalkit.heads import boxes
from evalkit.heads.adapter import Adapter
from evalkit.pipeline.settings import grid_passes, grid_points, refuse_grid, refuse_idle
from evalkit.pipeline.task_data import load_task, raised_at
from evalkit.results.schema import digest as digest_of
from evalkit.results.schema import plain
from evalkit.runtime.machine import cores, threads
from evalkit.runtime.progress import phase
from evalkit.runtime.ranks import ALONE, Ranks
from evalkit.tracking.trackers import Trackers
from evalkit.video.decode import default_decoder
from evalkit.video.workers import DecodePool
from evalkit.weights import checkpoint, preprocessor, trained_adapter

logger = logging.getLogger("evalkit")


@dataclass
class Experiment:
    """The chosen task, encoder and adapter, ready to work.

    Attributes:
        name: of the task, with `@mini` where its miniature is used.
        task: with its views resolved.
        adapter_name: as results show it.
        adapter: of the first grid point, or of all where one pass fits them; once fitted, of the chosen one.
        settings: the adapter's, defaults included; of the first grid point, once fitted of the chosen one.
        points: the settings of each grid point; one where nothing is to be chosen but the epoch.
        passes: the grid points, by their place in `points`, that each pass of fitting trains together.
        build: makes an untrained adapter for such points, the same whatever was made or fitted before.
        fitted_from: folder that the adapter's weights came from; None where it is not trained yet.
        reader: of the features that the adapter reads.
        augment: how training views differ; None where the adapter is fitted on the views of the test.
        ranks: this process's place among those that share the run.
        on_val: id, target and prediction of each val example, by the adapter that was chosen; empty before fitting.
        training: what a step of its training cost, as `cost.training` of a record; None where it took no steps.
        trackers: that are shown how fitting goes.
    """

    name: str
    task: Task
    adapter_name: str
    adapter: Adapter
    settings: dict[str, Any]
    points: list[dict[str, Any]]
    passes: list[list[int]]
    build: Callable[[Sequence[Mapping[str, Any]]], Adapter]
    fitted_from: Path | None
    reader: FeatureReader
    augment: Augment | None = None
    ranks: Ranks = ALONE
    on_val: Sequence[tuple[str, Any, Any]] = ()
    training: Mapping[str, Any] | None = None
    trackers: Trackers = field(default_factory=Trackers)

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, kind: type[BaseException] | None, *more: object) -> None:
        self.extractor.close()
        if self.reader.cache:
            self.reader.cache.store.__exit__(kind, *more)

    @property
    def encoder(self) -> EncoderRunner:
        """The encoder, on its device."""
        return self.reader.encoder

    @property
    def extractor(self) -> FeatureExtractor:
        """How clips are read, and what that cost so far."""
        return self.reader.extractor

    @property
    def device(self) -> torch.device:
        """The device of encoder and adapter."""
        return self.encoder.device

    @property
    def stored(self) -> bool:
        """Whether the features were made elsewhere, and there are neither pixels nor an encoder."""
        return self.extractor.pool.stored

    @property
    def needs_fit(self) -> bool:
        """Whether a run has to fit the adapter first."""
        return self.adapter.epochs > 0 and self.fitted_from is None and not self.adapter.saves_encoder

    @property
    def retuned(self) -> bool:
        """Whether the adapter came with weights for the encoder, which then is not what its checkpoint says."""
        return self.fitted_from is not None and self.adapter.trains_encoder and not self.adapter.saves_encoder

    def use(self, adapter: Adapter, settings: dict[str, Any]) -> None:
        """Replaces the adapter, and the features that it reads."""
        self.adapter, self.settings = adapter, settings
        self.reader = self.reader.reads(adapter.feature_spec)


def load_runner(config: Config, ranks: Ranks = ALONE) -> EncoderRunner:
    """Loads the encoder that the options name on this process's device."""
    options = config.options
    torch.manual_seed(options.seed)
    device = find_device(options.device, ranks)
    if device.type == "cpu":
        torch.set_num_threads(options.threads or threads(ranks.local_size))
    encoder = config.module
    if encoder is None:
        with phase(f"load the encoder {options.ckpt}"):
            encoder = encoders.load_encoder(options.ckpt, seed=options.seed, **config.encoder)
        if ranks.first:
            _tell_assumed(options.ckpt, encoder.clip)
    digest = checkpoint.sha256(encoder)
    if options.compile:
        encoder.compile()
    batch = (128 if device.type == "cuda" else 16) if options.batch == "auto" else options.batch
    return EncoderRunner(encoder.to(device), digest, device, batch, options.batch == "auto", options.precision)


def _tell_assumed(ckpt: str, clip: Clip) -> None:
    """Warns that mean and std of a transformers encoder are assumed, if no preprocessor file states them."""
    folder = encoders.folder_of(ckpt)
    if not folder or not (folder / "config.json").is_file() or preprocessor.read_values(folder):
        return
    config = checkpoint.read_json(folder / "config.json")
    if "encoder" not in config:  # else it states its clip
        logger.warning(
            f"{folder} has no preprocessor_config.json; assuming {config.get('model_type')}'s mean {clip.mean} and "
            f"std {clip.std}"
        )


def _tell_interpolated(encoder: Encoder, views: Views) -> None:
    """Notes that clips have another number of frames or another size than those that the encoder's positions are of."""
    clip, named = encoder.clip, getattr(encoder, "interpolates", ())
    lengths = {"frames": (clip.frames, views.frames, "frames"), "size": (clip.size, views.size, "pixels")}
    changed = [f"{old} to {new} {unit}" for name, (old, new, unit) in lengths.items() if name in named and old != new]
    if changed:
        logger.info(f"the encoder's positions are interpolated, from {' and from '.join(changed)}")


def make_extractor(config: Config, views: Views, runner: EncoderRunner, ranks: Ranks = ALONE) -> FeatureExtractor:
    """The clip reader for this task and encoder; the user's `clip.*` options override both."""
    options = config.options
    views = resolve_views(views, runner.module.clip, config.clip, config.words)
    workers = options.workers or max(1, cores() // ranks.local_size)
    if ranks.first:
        _tell_interpolated(runner.module, views)
    pool = DecodePool(workers, options.time_limit, beside=ranks.local_size, pinned=runner.device.type == "cuda")
    return FeatureExtractor(views, pool, runner.batch, Cost(), options.decoder, runner.module.clip, runner.gather)


def prepare(config: Config, ranks: Ranks = ALONE) -> Experiment:
    """Builds task, encoder and adapter from their names, and loads the adapter's trained weights, if any.

    Args:
        config: of the run.
        ranks: this process's place among those that share it.

    Raises:
        UserError: a part cannot be made, or does not fit the others.
    """
    options = config.options
    default_decoder(options.decoder)  # fails now where it is not installed
    runner = load_runner(config, ranks)  # before mini films are made
    if isinstance(runner.module, FeatureFiles):
        runner.module.restore_random(options.seed)
    task = load_task(config)
    extractor = make_extractor(config, task.views, runner, ranks)
    task = replace(task, views=extractor.views)  # as they are read, whatever the task said
    display = plugins.display_name(options.task) + ("@mini" if options.mini else "")
    if isinstance(runner.module, FeatureFiles):
        pool = stored_rows(runner.module, task, display, task.views)
        extractor, task = replace(extractor, pool=pool, gather=torch.cat), _without_videos(task)
    augment = _augment(task, config.trainer.views, options.task)
    boxes.check(task, task.views, augment)

    name = options.adapter or default_adapter(options.task)
    if task.adapter and not options.adapter:
        raise UserError(
            f"task {options.task}: protocol {task.protocol} has another adapter: add adapter={task.adapter}"
        )
    fitted_from = _trained_adapter(config, [name, *settings_class(name).COMPATIBLE_ADAPTERS])
    points = grid_points(config, task, name, fitted_from)
    passes = grid_passes(points, settings_class(name).STACKABLE)
    build = adapter_builder(name, runner.module, task)
    try:
        adapter = build([points[k] for k in passes[0]])
    except UserError as error:
        if isinstance(runner.module, FeatureFiles):
            raise UserError(f"{error}; {runner.module} holds {runner.module.holds}") from error
        raise
    if isinstance(runner.module, FeatureFiles):
        _check_features(runner.module, adapter, name, task)
    if adapter.score:
        task = _scored_by(task, adapter.score)
    if adapter.single_view and task.views.clips * task.views.crops != 1:
        raise UserError(f"adapter={name} reads one view per video: set clip.clips=1 clip.crops=1")
    swept = list(dict.fromkeys(key for point in config.points for key in point))
    if config.command == "run":
        refuse_idle([*config.adapter, *swept], adapter, points[0], fitted_from)
    if len(points) > 1:
        refuse_grid(swept[0], adapter, points, fitted_from)
    if fitted_from:
        if options.adapter_from and adapter.saves_encoder:
            raise UserError(f"adapter {name} trains the encoder too: give the whole as ckpt={options.adapter_from}")
        if task.classes:
            trained_adapter.check_classes(fitted_from, digest_of(task.classes), len(task.classes), display)
        frozen = frozen_parts(adapter, task, runner.sha256)
        trained_adapter.restore_adapter(
            adapter, fitted_from, frozen, "train it again, or adapter.from=none fits a new one"
        )
    adapter.to(runner.device).eval()
    if ranks.size > 1 and adapter.trains_encoder and not adapter.divisible:
        raise UserError(
            f"adapter={name} trains the encoder on whole batches, which one process does: leave out devices="
        )
    return Experiment(
        name=display,
        task=task,
        adapter_name=plugins.display_name(name),
        adapter=adapter,
        settings=points[0],
        points=points,
        passes=passes,
        build=build,
        fitted_from=fitted_from,
        reader=replace(_reader(config, extractor, runner, adapter), saving=points[0].keys()),
        augment=augment,
        ranks=ranks,
    )


def _scored_by(task: Task, score: Score) -> Task:
    """The task with another score, which uses no targets; targets that are not public become empty texts."""
    test = [replace(example, target="") if example.target is None else example for example in task.test]
    plain_task = replace(task, test=test, score=score, quick_score=None, submission=None)
    return replace(plain_task, chance=1.0, controls=(), published={})  # the rank of vectors that are all alike


def _without_videos(task: Task) -> Task:
    """The task for precomputed features: no videos are generated, and training uses the test views."""
    if task.augment:
        logger.info("features of augmented views are in no file: the adapter is fitted on the views of the test")
    return replace(task, prepare_videos=None, augment=None)


def _check_features(features: FeatureFiles, adapter: Adapter, name: str, task: Task) -> None:
    """Raises UserError where files of features cannot serve an adapter."""
    if adapter.trains_encoder:
        raise UserError(f"adapter={name} trains the encoder; {features} holds {features.holds}")
    features.check_spec(adapter.feature_spec)
    splits = {table.split for table in features.tables}
    if task.train and adapter.epochs > 0 and "train" not in splits:
        raise UserError(
            f"{features} holds features of {' and '.join(sorted(splits))}, and adapter={name} is fitted on train: make "
            "them with `evalkit features split=all`"
        )


def _reader(config: Config, extractor: FeatureExtractor, runner: EncoderRunner, adapter: Adapter) -> FeatureReader:
    """The reader of the adapter's features, with a cache unless that is off or the encoder will change."""
    options, spec = config.options, adapter.feature_spec
    if options.cache == "off" and options.cache_also:
        raise UserError("cache.also= has no effect with cache=off: leave one of them out")
    if options.cache == "off" or adapter.trains_encoder or extractor.pool.stored:
        return FeatureReader(extractor, runner, spec)
    return stored_reader(config, extractor, runner, spec)


def stored_reader(
    config: Config, extractor: FeatureExtractor, runner: EncoderRunner, spec: FeatureSpec
) -> FeatureReader:
    """The reader of a part of the encoder's output, with the cache of the words."""
    options = config.options
    # What a function of the user's own was asked for may lie where no look at the module finds it.
    made_by = f" {options.ckpt} {sorted(plain(config.encoder).items())}" if config.built_by else ""
    cache = open_feature_cache(
        runner, extractor, spec, compiled=options.compile, made_by=made_by, also=options.cache_also
    )
    return FeatureReader(extractor, runner, spec, cache)


def adapter_builder(name: str, encoder: Encoder, task: Task) -> Callable[[Sequence[Mapping[str, Any]]], Adapter]:
    """Returns a function that builds an untrained adapter for grid points, always from the current random state."""
    make, kind = plugins.factory("adapter", name), settings_class(name)
    random_state = torch.get_rng_state()

    def build(points: Sequence[Mapping[str, Any]]) -> Adapter:
        torch.set_rng_state(random_state)
        try:
            adapter = make(encoder, task, [kind(**point) for point in points])
        except UserError:
            raise
        except Exception as error:  # whatever an adapter's own code raises
            message = f"{raised_at(error)}: {one_line(error)}"
            raise UserError(f"adapter {name} fails: {message}; see docs/adapters.md") from error
        if not isinstance(adapter, Adapter):
            raise UserError(f"adapter {name} returned a {type(adapter).__name__}; wanted an evalkit.api.Adapter")
        return adapter

    return build


def _augment(task: Task, views: int | str, name: str) -> Augment | None:
    """How training views differ: as the task says, and as many as `trainer.views`."""
    if views == "task":
        return task.augment
    if views and not task.augment:
        raise UserError(
            f"trainer.views={views}: task {name} says not how training views differ, so that all would show the same; "
            "leave it out"
        )
    return replace(task.augment, views=int(views)) if views and task.augment else None


def frozen_parts(adapter: Adapter, task: Task, encoder_sha256: str) -> dict[str, str]:
    """What a trained adapter belongs to and does not hold itself: hashes of encoder and classes; windows in seconds."""
    views = task.views
    windows = f"{views.window:g} s, one every {views.window_stride or views.window:g} s" if views.window else ""
    of_windows = {"windows of": windows} if windows else {}
    if adapter.saves_encoder:  # it lies beside the adapter, and words stand for classes
        return of_windows
    of_classes = {"classes": digest_of(task.classes)} if task.classes else {}
    return {"encoder": encoder_sha256, **of_classes, **of_windows}


def _trained_adapter(config: Config, names: Sequence[str]) -> Path | None:
    """The folder of the first of these adapters that is trained: in `adapter.from`, else in the checkpoint's folder.

    `evalkit adapt` starts anew unless `adapter.from` is given.
    """
    given = config.options.adapter_from
    if given == "none" or (config.command == "adapt" and not given):
        return None
    folder = Path(given).expanduser() if given else encoders.folder_of(config.options.ckpt)
    homes = [trained_adapter.adapter_folder(folder, name) for name in names] if folder else []
    trained = next((home for home in homes if (home / "adapter.json").is_file()), None)
    if given and not trained:
        raise UserError(f"adapter.from={given}: no trained adapter {' or '.join(names)} there ({homes[0]})")
    return trained


def find_device(word: str, ranks: Ranks) -> torch.device:
    """The device of this process that `device=` selects; raises UserError if there is none."""
    word = ("cuda" if torch.cuda.is_available() else "cpu") if word == "auto" else word
    if word == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch sees no GPU here; use device=cpu or auto")
    if word == "cuda" and ranks.local_size > 1:
        if ranks.local_size > torch.cuda.device_count():
            raise UserError(
                f"devices={ranks.local_size}: torch sees {counted(torch.cuda.device_count(), 'GPU')} here; start "
                "as many processes"
            )
        torch.cuda.set_device(ranks.local)
        return torch.device("cuda", ranks.local)
    if word == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps: torch sees no Metal device here; use device=cpu or auto")
    return torch.device(word)
