"""What a run is made of: task, encoder and adapter, made from the words and checked against each other."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from evalkit import encoders, plugins
from evalkit.api import Adapter, Augment, Task, Views
from evalkit.config.config import Config
from evalkit.config.keys import default_adapter
from evalkit.errors import UserError
from evalkit.features import extract
from evalkit.features.codec import as_stored
from evalkit.features.extract import Cost, FeatureCache, FeatureExtractor, open_feature_cache
from evalkit.features.forward import EncoderRunner
from evalkit.heads import boxes
from evalkit.pipeline.checks import check_task
from evalkit.results.schema import digest as digest_of
from evalkit.runtime.machine import cores
from evalkit.video.decode import default_decoder
from evalkit.video.workers import DecodePool
from evalkit.weights import checkpoint, trained_adapter

# Settings that only matter while an adapter is fitted.
TRAINING = ("lr", "weight_decay", "epochs", "batch_size")


@dataclass
class Experiment:
    """The chosen task, encoder and adapter, ready to work.

    Attributes:
        name: of the task, with `@mini` where its miniature is used.
        adapter: of the first grid point, or of all where one pass fits them; once fitted, of the chosen one.
        settings: the adapter's, defaults included; of the first grid point, once fitted of the chosen one.
        points: the settings of each grid point; one where nothing is to be chosen but the epoch.
        passes: the grid points, by their place in `points`, that each pass of fitting trains together.
        build: makes an untrained adapter for such points, the same whatever was made or fitted before.
        fitted_from: folder that the adapter's weights came from; None where it is not trained yet.
        feature_cache: where features are stored; None where they are not.
        augment: how training views differ; None where the adapter is fitted on the views of the test.
    """

    name: str
    task: Task
    encoder: EncoderRunner
    adapter_name: str
    adapter: Any
    settings: dict[str, Any]
    points: list[dict[str, Any]]
    passes: list[list[int]]
    build: Callable[[Sequence[Mapping[str, Any]]], Any]
    fitted_from: Path | None
    extractor: FeatureExtractor
    feature_cache: FeatureCache | None
    augment: Augment | None = None

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, kind: type[BaseException] | None, *more: object) -> None:
        self.extractor.close()
        if self.feature_cache:
            self.feature_cache.store.__exit__(kind, *more)

    @property
    def device(self) -> torch.device:
        """Where is computed."""
        return self.encoder.device

    @property
    def retuned(self) -> bool:
        """Whether the adapter came with weights for the encoder, which then is not what its checkpoint says."""
        return (
            self.fitted_from is not None
            and self.adapter.trains_encoder
            and not trained_adapter.saves_encoder(self.adapter)
        )

    def use(self, adapter: Any, settings: dict[str, Any]) -> None:
        """Puts another adapter, and the features that it reads, in place of the present one."""
        self.adapter, self.settings = adapter, settings
        if self.feature_cache:
            spec = adapter.feature_spec
            key = replace(self.feature_cache.key, feature_spec=repr(spec), dtype=spec.dtype, layout=spec.layout)
            self.feature_cache = replace(self.feature_cache, key=key)

    def keep(self, pixels: Tensor) -> Tensor:
        """What the adapter keeps of the encoder's output, (N, ...) on the CPU, of uint8 clips (N, T, C, H, W)."""
        spec = self.adapter.feature_spec
        self.encoder.module.eval()  # an adapter that holds it may be in the middle of its training
        found = self.encoder(pixels, spec)
        return (
            found if self.feature_cache else as_stored(found, spec.layout)
        )  # a shelf gives it as it is stored by itself


def load_runner(config: Config) -> EncoderRunner:
    """The encoder that the words ask for, on its device, ready for clips."""
    options = config.options
    torch.manual_seed(options.seed)
    device = _device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(options.threads or cores())
    encoder = config.module
    if encoder is None:
        encoder = encoders.load_encoder(options.ckpt, seed=options.seed, **config.encoder)
    digest = checkpoint.sha256(encoder)
    if options.compile:
        encoder.compile()
    batch = (128 if device.type == "cuda" else 16) if options.batch == "auto" else options.batch
    return EncoderRunner(encoder.to(device), digest, device, batch, options.batch == "auto", options.precision)


def load_task(config: Config) -> Task:
    """The task that the words ask for.

    Raises:
        UserError: its data are not there or not as they should be, or its own code fails.
    """
    options = config.options
    mini = {"mini": True} if options.mini else {}
    try:
        task = plugins.factory("task", options.task)(**config.data, **mini)
    except FileNotFoundError as error:
        raise UserError(f"task {options.task}: no file {error.filename}; data.root= says where its data lie") from error
    except UserError:
        raise
    except Exception as error:  # whatever a task's own code raises
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        raise UserError(f"task {options.task} fails: {where}: {type(error).__name__}: {error}") from error
    if not isinstance(task, Task):
        raise UserError(f"task {options.task} returned a {type(task).__name__}; wanted an evalkit.api.Task")
    check_task(task, options.task)
    return task


def make_extractor(config: Config, views: Views, forward: EncoderRunner) -> FeatureExtractor:
    """How the task's clips are read for this encoder, the user's `clip.*` words in place of either's."""
    options = config.options
    views = extract.resolve_views(views, forward.module.clip, config.clip)
    pool = DecodePool(options.workers or cores(), options.time_limit)
    return FeatureExtractor(views, pool, forward.batch, Cost(), options.decoder)


def prepare(config: Config) -> Experiment:
    """Task, encoder and adapter from their names, the adapter's trained weights in place where there are any."""
    options = config.options
    default_decoder(options.decoder)  # fails now where it is not installed
    forward = load_runner(config)  # before mini films are made
    encoder = forward.module
    task = load_task(config)
    extractor = make_extractor(config, task.views, forward)
    task = replace(task, views=extractor.views)  # as they are read, whatever the task said
    augment = _augment(task, config)
    boxes.check(task, task.views, augment)
    name = options.adapter or default_adapter(options.task)
    module, make = plugins.module_and_factory("adapter", name)
    takes: Mapping[str, Sequence[str]] = getattr(module, "TAKES", {})
    fitted_from = _trained_adapter(config, [name, *takes])
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(make).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    own = task.adapter or default_adapter(options.task)
    if task.adapter and not options.adapter:
        raise UserError(f"task {options.task}: protocol {task.protocol} has another adapter: add adapter={own}")
    prescribed = task.settings if name == own else {}  # by its protocol, which names its adapter
    if fitted_from:  # of what the task prescribes, it still decides how a trained adapter is asked
        asking = getattr(module, "ASKING", ())
        known = trained_adapter.adapter_settings(fitted_from)
        fitting = takes.get(fitted_from.name, known)  # of another adapter's settings, those that its weights need
        prescribed = {key: known[key] for key in fitting if key in known} | {
            key: prescribed[key] for key in asking if key in prescribed
        }
    settings = {**defaults, **prescribed, **config.adapter}
    points = [{**settings, **own} for own in config.points or ({},)]
    if unknown := {key for point in points for key in point} - defaults.keys():
        raise UserError(f"{fitted_from or f'task {options.task}'}: adapter {name} has no setting {min(unknown)!r}")
    together: tuple[str, ...] = getattr(module, "TOGETHER", ()) if callable(getattr(module, "grid", None)) else ()
    random_state = torch.get_rng_state()

    def build(chosen: Sequence[Mapping[str, Any]]) -> Any:
        torch.set_rng_state(random_state)
        return module.grid(encoder, task, chosen) if len(chosen) > 1 else make(encoder, task, **chosen[0])

    passes = _passes(points, together)
    adapter = build([points[k] for k in passes[0]])
    if not isinstance(adapter, lightning.LightningModule) or not isinstance(adapter, Adapter):
        raise UserError(
            f"adapter {name} returned a {type(adapter).__name__}; wanted a LightningModule as in evalkit.api"
        )
    idle = [key for key in TRAINING if key in config.adapter or any(key in own for own in config.points)]
    untrained = not adapter.epochs and points[0].get("epochs") != 0
    if idle and config.command == "run" and (fitted_from or trained_adapter.saves_encoder(adapter) or untrained):
        why = f"comes trained from {fitted_from}. adapter.from=none fits a new one"
        if trained_adapter.saves_encoder(adapter):
            why = "trains the encoder too, which evalkit adapt does"
        elif not fitted_from:
            why = "is not trained with these settings"
        raise UserError(f"adapter.{idle[0]} has no effect: the adapter {why}")
    fitted = adapter.epochs and all(point.get("epochs", adapter.epochs) for point in points)
    if len(points) > 1 and (fitted_from or adapter.trains_encoder or not fitted):
        why = "changes the encoder for those that follow" if adapter.trains_encoder else "is not fitted"
        raise UserError(f"adapter.{next(iter(config.points[0]))} has several values, but the adapter {why}: give one")
    if fitted_from:
        if options.adapter_from and trained_adapter.saves_encoder(adapter):
            raise UserError(f"adapter {name} trains the encoder too: give the whole as ckpt={options.adapter_from}")
        trained_adapter.restore_adapter(adapter, fitted_from, frozen_parts(adapter, task, forward.sha256))
    adapter.to(forward.device).eval()
    display = plugins.display_name(options.task) + ("@mini" if options.mini else "")
    feature_cache = (
        None
        if options.cache == "off" or adapter.trains_encoder
        else open_feature_cache(config, forward, extractor, adapter.feature_spec)
    )
    return Experiment(
        display,
        task,
        forward,
        plugins.display_name(name),
        adapter,
        points[0],
        points,
        passes,
        build,
        fitted_from,
        extractor,
        feature_cache,
        augment,
    )


def _augment(task: Task, config: Config) -> Augment | None:
    """How training views differ: as the task says, and as many as `trainer.views`."""
    views = config.trainer.views
    if views == "task":
        return task.augment
    if views and not task.augment:
        raise UserError(
            f"trainer.views={views}: task {config.options.task} says not how training views differ, so that all would "
            "show the same; leave it out"
        )
    return replace(task.augment, views=views) if views and task.augment else None


def _passes(points: Sequence[Mapping[str, Any]], together: Sequence[str]) -> list[list[int]]:
    """The places of points that differ in these settings at most; of one each where there are no such settings."""
    found: dict[str, list[int]] = {}
    for k, point in enumerate(points):
        apart = {key: value for key, value in point.items() if key not in together}
        found.setdefault(repr(apart) if together else str(k), []).append(k)
    return list(found.values())


def frozen_parts(adapter: Adapter, task: Task, encoder_sha256: str) -> dict[str, str]:
    """Hashes of what a trained adapter belongs to and does not hold itself: the frozen encoder, the task's classes."""
    if trained_adapter.saves_encoder(adapter):  # it lies beside the adapter, and words stand for classes
        return {}
    return {"encoder": encoder_sha256} | ({"classes": digest_of(task.classes)} if task.classes else {})


def _trained_adapter(config: Config, names: Sequence[str]) -> Path | None:
    """Where the weights of the first of these adapters lie: as `adapter.from` says, else in the checkpoint's folder.

    `evalkit adapt` starts anew unless `adapter.from` is given.
    """
    given = config.options.adapter_from
    if given == "none" or (config.command == "adapt" and not given):
        return None
    folder = Path(given).expanduser() if given else encoders.folder_of(config.options.ckpt)
    homes = [trained_adapter.adapter_folder(folder, name) for name in names] if folder else []
    found = next((home for home in homes if (home / "adapter.json").is_file()), None)
    if given and not found:
        raise UserError(f"adapter.from={given}: no trained adapter {' or '.join(names)} there ({homes[0]})")
    return found


def _device(word: str) -> torch.device:
    if word == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if word == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch sees no GPU here; use device=cpu or auto")
    if word == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps: torch sees no Metal device here; use device=cpu or auto")
    return torch.device(word)
