"""The settings of an adapter and of its grid points: where they come from, and which have no effect."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

from evalkit import plugins
from evalkit.api import Task, Views
from evalkit.config.config import Config, typed
from evalkit.config.keys import Key, adapter_defaults, adapter_keys, default_adapter, known_keys, settings_class
from evalkit.config.parse import check_value, resolve
from evalkit.datasets import protocols
from evalkit.errors import UserError, printable
from evalkit.heads.adapter import Adapter, Training
from evalkit.language.served import is_address
from evalkit.pipeline.task_data import load_task
from evalkit.results.consistency import USED
from evalkit.weights import trained_adapter

# Settings that only matter while an adapter is fitted.
TRAINING = tuple(field.name for field in fields(Training))


def adapter_settings(
    defaults: Mapping[str, Any],
    prescribed: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    trained: Mapping[str, Any] | None = None,
    inference: Collection[str] = (),
) -> dict[str, Any]:
    """The settings of an adapter, later ones first: overrides, what the protocol prescribes, defaults.

    Args:
        defaults: of the adapter.
        prescribed: by the task's protocol.
        overrides: of the user.
        trained: that a trained adapter was fitted with, which take the place of the protocol's; None where it is to be
            fitted.
        inference: settings that the protocol decides for a trained adapter, too.
    """
    if trained is not None:
        prescribed = {**trained, **{key: prescribed[key] for key in inference if key in prescribed}}
    return {**defaults, **prescribed, **overrides}


def grid_points(config: Config, task: Task, name: str, fitted_from: Path | None) -> list[dict[str, Any]]:
    """The settings of each grid point of an adapter; of one point where nothing is swept."""
    kind, defaults = settings_class(name), adapter_defaults(name)
    protocols = name == (task.adapter or default_adapter(config.options.task))  # `task.settings` are of that adapter
    trained = None
    if fitted_from:
        trained = trained_settings(fitted_from, kind.COMPATIBLE_ADAPTERS, adapter_keys(name))
        for given in (config.adapter, *config.points):
            refuse_other(given, trained, kind.TRAINED_WITH, fitted_from)
    settings = adapter_settings(
        defaults,
        task.settings if protocols else {},
        config.adapter,
        trained=trained,
        inference=kind.INFERENCE_SETTINGS,
    )
    points = [{**settings, **point} for point in config.points or ({},)]
    if unknown := {key for point in points for key in point} - defaults.keys():
        source = fitted_from or f"task {config.options.task}"
        raise UserError(f"{source}: adapter {name} has no setting {min(unknown)!r}")
    return points


def grid_passes(points: Sequence[Mapping[str, Any]], stackable: Collection[str]) -> list[list[int]]:
    """The places of points that differ in these settings at most; of one each where there are no such settings."""
    passes: dict[str, list[int]] = {}
    for k, point in enumerate(points):
        apart = {key: value for key, value in point.items() if key not in stackable}
        passes.setdefault(repr(apart) if stackable else str(k), []).append(k)
    return list(passes.values())


def refuse_idle(given: Sequence[str], adapter: Adapter, settings: Mapping[str, Any], fitted_from: Path | None) -> None:
    """Raises UserError if a setting of fitting was given, and a run does not fit this adapter.

    Args:
        given: the settings that the user gave.
        adapter: as made.
        settings: of the adapter.
        fitted_from: folder of its weights; None where it comes untrained.
    """
    idle = [key for key in TRAINING if key in given]
    untrained = not adapter.epochs and settings.get("epochs") != 0
    if not idle or not (fitted_from or adapter.saves_encoder or untrained):
        return
    why = "is not trained with these settings"
    if adapter.saves_encoder:
        why = "trains the encoder too, which evalkit adapt does"
    elif fitted_from:
        why = f"comes trained from {fitted_from}. adapter.from=none fits a new one"
    raise UserError(f"adapter.{idle[0]} has no effect: the adapter {why}")


def refuse_other(given: Mapping[str, Any], stored: Mapping[str, Any], depends: Sequence[str], folder: Path) -> None:
    """Raises UserError if a setting was given in another value than the one that an adapter's weights depend on.

    Args:
        given: the settings that the user gave.
        stored: those that the adapter was trained with.
        depends: names of those that its weights depend on, and whose shapes would not tell.
        folder: of its weights.
    """
    other = [key for key in depends if key in given and key in stored and given[key] != stored[key]]
    if other:
        key = other[0]
        was = "none" if stored[key] is None else stored[key]
        raise UserError(
            f"adapter.{key}={given[key]}: the adapter in {folder} was trained with adapter.{key}={was}: leave it out, "
            "or train another with adapter.from=none"
        )


def refuse_grid(key: str, adapter: Adapter, points: Sequence[Mapping[str, Any]], fitted_from: Path | None) -> None:
    """Raises UserError if several grid points are given for an adapter of which a fit cannot choose one.

    Args:
        key: a setting that has several values.
        adapter: of the first pass.
        points: the settings of each.
        fitted_from: folder of its weights; None where it comes untrained.
    """
    fitted = adapter.epochs and all(point.get("epochs", adapter.epochs) for point in points)
    if fitted_from or adapter.trains_encoder or not fitted:
        why = "changes the encoder for those that follow" if adapter.trains_encoder else "is not fitted"
        raise UserError(f"adapter.{key} has several values, but the adapter {why}: give one")


def used(config: Config, settings: Mapping[str, Any], views: Mapping[str, Any]) -> str:
    """Comments for the end of config.yaml: what a run used of the keys that were not set.

    Args:
        config: of the run.
        settings: of the adapter, as its record has them.
        views: of the task, resolved; empty where no video is read.
    """
    known = adapter_defaults(config.options.adapter or default_adapter(config.options.task))
    values = {f"adapter.{key}": settings[key] for key in known if key in settings and key not in config.adapter}
    values |= {f"clip.{key}": value for key, value in views.items() if value is not None and key not in config.clip}
    lines = [f"# {key}: {printable(typed(value))}\n" for key, value in values.items() if key != "adapter.lm"]
    return "".join([USED, *lines]) if lines else ""


def prescribed_values(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The name of the protocol, and the value of each key of adapter.* and clip.* that it prescribes.

    Both empty where the task's data are needed to tell, and are not there.

    Args:
        words: of a run; `ckpt=` may be missing.

    Raises:
        UserError: a word is wrong.
    """
    given = [word for word in words if "=" in word]
    if not any(word.startswith("ckpt=") for word in given):
        given.append("ckpt=demo")
    config = resolve("run", given)
    fields = _fields(config)
    name = config.options.adapter or default_adapter(config.options.task)
    settings = (
        fields.get("settings", {}) if name == (fields.get("adapter") or default_adapter(config.options.task)) else {}
    )
    known = adapter_defaults(name)
    values = {f"adapter.{key}": value for key, value in settings.items() if key in known}
    views = asdict(fields["views"]) if "views" in fields else {}
    values |= {f"clip.{key}": value for key, value in views.items() if value != getattr(Views(), key)}
    return fields.get("protocol", ""), values


def _fields(config: Config) -> Mapping[str, Any]:
    """`protocol`, `views`, `adapter` and `settings` of the task."""
    with contextlib.suppress(UserError, OSError):
        task = load_task(config)
        return {name: getattr(task, name) for name in ("protocol", "views", "adapter", "settings")}
    name = plugins.display_name(config.options.task)
    key = known_keys("run", config.options.task).get("data.protocol")
    if key and get_args(key.type) == get_args(protocols.Name):
        with contextlib.suppress(UserError, KeyError):
            return protocols.prescribed(config.data.get("protocol", key.default), name)
    return {}


def trained_settings(folder: Path, compatible: Mapping[str, Sequence[str]], keys: Mapping[str, Key]) -> dict[str, Any]:
    """The settings that an adapter was trained with; of another, compatible one, those that its weights depend on.

    Raises:
        UserError: one is of another type than its key, or out of its bounds.
    """
    stored = trained_adapter.adapter_settings(folder)
    settings = {key: stored[key] for key in compatible.get(folder.name, stored) if key in stored}
    if is_address(str(settings.get("lm", ""))):
        raise UserError(f"{folder / 'adapter.json'} names a server as lm, which only your own words may")
    for name, value in settings.items():
        if key := keys.get(f"adapter.{name}"):
            settings[name] = check_value(str(folder / "adapter.json"), f"adapter.{name}", key, value)
    return settings
