"""Controls: blind, shuffled, single_frame and option_order; which apply, and what each scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from evalkit.api import Example, Prediction, Task, Views
from evalkit.errors import UserError
from evalkit.heads.adapter import Adapter
from evalkit.pipeline.setup import Experiment
from evalkit.results import scores
from evalkit.results.schema import plain

logger = logging.getLogger("evalkit")


def shuffled(pixels: Tensor, seed: int) -> Tensor:
    """The frames in random order, the same order in every view."""
    order = torch.randperm(pixels.shape[1], generator=torch.Generator().manual_seed(seed))
    return pixels[:, order]


def single_frame(pixels: Tensor, seed: int) -> Tensor:
    """The middle frame, held for the whole clip."""
    middle = pixels.shape[1] // 2
    return pixels[:, middle : middle + 1].expand_as(pixels)


def shuffled_windows(features: Tensor) -> Tensor:
    """The windows (windows, V, ...) of a video in random order, each as it is; the same order for as many."""
    return features[torch.randperm(len(features), generator=torch.Generator().manual_seed(len(features)))]


VARIANTS = {"shuffled": shuffled, "single_frame": single_frame}
SEQUENCE_VARIANTS = {"shuffled": shuffled_windows}  # of a sequence of windows, in place of those of the pixels
ASKED_AGAIN = ("blind", "option_order")


def pixel_variants(controls: Sequence[str], views: Views) -> dict[str, Callable[[Tensor, int], Tensor]]:
    """The controls that change the pixels of a clip."""
    of_sequences = SEQUENCE_VARIANTS if views.window else {}
    return {name: VARIANTS[name] for name in controls if name in VARIANTS and name not in of_sequences}


def controls_of(experiment: Experiment) -> list[str]:
    """The task's controls, without `blind` where the adapter needs a video."""
    controls = list(experiment.task.controls)
    if unknown := set(controls) - {*VARIANTS, *ASKED_AGAIN}:
        raise UserError(f"task {experiment.name}: no control named {min(unknown)!r}")
    if pixels := [*pixel_variants(controls, experiment.extractor.views)] if experiment.stored else []:
        logger.info(f"controls that change pixels left out, because there are only features: {', '.join(pixels)}")
        controls = [name for name in controls if name not in pixels]
    if "blind" in controls and experiment.adapter.needs_video:
        logger.warning(f"control blind left out: adapter {experiment.adapter_name} has no answer without a video")
        controls.remove("blind")
    return controls


def measure_control(name: str, task: Task, predicted: Mapping[str, Prediction]) -> dict[str, Any]:
    """A control's headline over the labeled test examples, failed ones wrong as in the score itself."""
    labeled = [example for example in task.test if example.target is not None]
    targets = [example.target for example in labeled]
    values = [plain(predicted[e.id].value) if e.id in predicted else None for e in labeled]
    metric, value = scores.control(name, task.quick_score or task.score, values, targets)
    return {"name": name, "metric": metric, "value": value}


def cyclic(
    adapter: Adapter, examples: Sequence[Example], features: Tensor, straight: Mapping[str, Prediction]
) -> dict[str, Prediction]:
    """Predictions under each cyclic order of the options: lists of indices into the original options."""
    values = {example.id: [straight[example.id].value] for example in examples}
    for shift in range(1, max(len(example.choices) for example in examples)):
        rows = [row for row, example in enumerate(examples) if shift < len(example.choices)]
        some = [examples[row] for row in rows]
        turned = [replace(e, choices=e.choices[shift:] + e.choices[:shift]) for e in some]
        for example, prediction in zip(some, adapter.predict(turned, features[rows]), strict=True):
            choice = prediction.value
            values[example.id].append(None if choice is None else (choice + shift) % len(example.choices))
    return {key: Prediction(value) for key, value in values.items()}
