"""One prediction per test example, and those of the controls, from clips that are decoded once."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from evalkit import encode
from evalkit.api import Adapter, Example, Prediction, Task, UserError
from evalkit.encode import Encoding, Source
from evalkit.fit import headline, settle
from evalkit.parts import Parts

VARIANTS = {"shuffled": encode.shuffled, "single_frame": encode.single_frame}
ASKED_AGAIN = ("blind", "option_order")


@dataclass(frozen=True)
class Predictions:
    """What was predicted for the test examples.

    Attributes:
        by_control: predictions by example id; under the empty name those that are scored, else a control's.
        failures: reason by example id.
        decoders: decoder by example id, where it was not the default.
    """

    by_control: dict[str, dict[str, Prediction]]
    failures: dict[str, str]
    decoders: dict[str, str]

    @property
    def scored(self) -> dict[str, Prediction]:
        return self.by_control[""]


def controls_of(parts: Parts) -> list[str]:
    """The task's controls, but for `blind` where the adapter has no answer without a video."""
    controls = list(parts.task.controls)
    if unknown := set(controls) - {*VARIANTS, *ASKED_AGAIN}:
        raise UserError(f"task {parts.name}: no control named {min(unknown)!r}")
    if "blind" in controls:
        try:
            with torch.inference_mode():
                parts.adapter.predict(parts.task.test[:1], None)
        except UserError as error:
            print(f"control blind left out: {error}", file=sys.stderr)
            controls.remove("blind")
    return controls


def predict(parts: Parts, controls: Sequence[str]) -> Predictions:
    """Predictions of all test examples; each video is decoded once, however many examples and controls ask about it."""
    task, adapter = parts.task, parts.adapter
    if task.provide:
        task.provide(task.test)
    variants = {"": encode.unchanged} | {name: VARIANTS[name] for name in controls if name in VARIANTS}
    asking: dict[Source, list[Example]] = {}
    for example in task.test:
        asking.setdefault(Source(example.video, example.span), []).append(example)
    predicted: dict[str, dict[str, Prediction]] = {name: {} for name in [*variants, *controls]}
    failures: dict[str, str] = {}
    decoders: dict[str, str] = {}
    waiting: list[Encoding] = []

    def answer() -> None:
        asked = [(place, example) for place, one in enumerate(waiting) for example in asking[one.source]]
        features = {name: torch.stack([one.features[name] for one in waiting]) for name in variants if asked}
        # A video may be asked about many times: its features are not all there as often at once.
        for start in range(0, len(asked), parts.reader.batch):
            some = asked[start : start + parts.reader.batch]
            examples, places = [example for _, example in some], [place for place, _ in some]
            with torch.inference_mode():
                for name in variants:
                    predicted[name].update(_ask(adapter, examples, features[name][places]))
                if "blind" in predicted:
                    predicted["blind"].update(_ask(adapter, examples, None))
                if "option_order" in predicted:
                    straight = predicted[""]
                    predicted["option_order"].update(_cyclic(adapter, examples, features[""][places], straight))
        waiting.clear()

    for one in parts.reader.encode(list(asking), parts.keep, "encode", variants, parts.shelf):
        for example in asking[one.source]:
            if one.failure:
                failures[example.id] = one.failure
            elif one.decoder:
                decoders[example.id] = one.decoder
        if not one.failure:
            waiting.append(one)
        if len(waiting) >= parts.reader.batch:
            answer()
    answer()
    for name in predicted.keys() - {"option_order"}:  # whose values are lists, one per order
        examples = [example for example in task.test if example.id in predicted[name]]
        settled = settle(adapter, examples, [predicted[name][example.id] for example in examples])
        predicted[name] = {example.id: one for example, one in zip(examples, settled, strict=True)}
    return Predictions(predicted, failures, decoders)


def control(name: str, task: Task, predicted: Mapping[str, Prediction]) -> dict[str, Any]:
    """A control's headline over the labelled test examples, failed ones wrong as in the score itself."""
    labelled = [example for example in task.test if example.target is not None]
    targets = [example.target for example in labelled]
    values = [predicted[e.id].value if e.id in predicted else None for e in labelled]
    metric = next(iter(task.score(targets[:2], targets[:2])))
    if name != "option_order":
        return {"name": name, "metric": metric, "value": headline(task.score, values, targets)}
    orders = max((len(value) for value in values if value is not None), default=1)
    turns = [[None if value is None else value[k % len(value)] for value in values] for k in range(orders)]
    return {"name": name, "metric": metric, "value": sum(headline(task.score, t, targets) for t in turns) / orders}


def _ask(adapter: Adapter, examples: Sequence[Example], features: Tensor | None) -> dict[str, Prediction]:
    return {e.id: p for e, p in zip(examples, adapter.predict(examples, features), strict=True)}


def _cyclic(
    adapter: Adapter, examples: Sequence[Example], features: Tensor, straight: Mapping[str, Prediction]
) -> dict[str, Prediction]:
    """Predictions under every cyclic order of the options, as a list of indices into the options as they stand."""
    orders = max(len(example.choices) for example in examples)
    values = {example.id: [straight[example.id].value] for example in examples}
    for shift in range(1, orders):
        shifts = [shift % len(e.choices) for e in examples]  # one with fewer options comes round again
        turned = [replace(e, choices=e.choices[n:] + e.choices[:n]) for e, n in zip(examples, shifts, strict=True)]
        for example, n, prediction in zip(examples, shifts, adapter.predict(turned, features), strict=True):
            said = prediction.value
            values[example.id].append(None if said is None else (said + n) % len(example.choices))
    return {key: Prediction(value) for key, value in values.items()}
