"""Encoder presets in configs/, read without torch so that listing them is fast."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import evalkit
from evalkit.errors import UserError


@dataclass(frozen=True)
class Card:
    """Description of an encoder for lists and docs.

    Attributes:
        family: the file in evalkit/encoders/ that builds it, with transformers' own name of the model where it has one.
        clip: frames x size, as trained.
        parameters: how many weights it has, text tower included.
        text: whether it embeds text.
        license: of the published weights.
        source: where model and weights are described.
        hub: the model on the Hugging Face hub that `ckpt=NAME` stands for; empty where there is none.
        url: file of the published weights where they are on no hub; it is fetched by hand, and `ckpt=FILE` reads it.
        trained_on: what the published weights were trained on, as far as that is published: labels, captions, videos
            or images of a data set, by the name of its task or its own (evalkit/datasets/training_data.py).
        others: other models of this shape on the hub, each with what it was trained on.
    """

    family: str
    clip: str
    parameters: int
    text: bool = False
    license: str = ""
    source: str = ""
    hub: str = ""
    url: str = ""
    trained_on: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def presets() -> dict[str, Path]:
    """Files of the presets in configs/, by name."""
    folders = [Path(path) / "configs" for path in evalkit.__path__]
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.yaml"))}


def read(file: Path) -> dict[str, Any]:
    """Read a preset's file: encoder, clip, settings, card, and tokenizer, if any.

    Raises:
        UserError: it is no preset.
    """
    import yaml

    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or not {"encoder", "clip", "settings"} <= values.keys():
        raise UserError(f"{file} describes no encoder: wanted encoder, clip, settings")
    return {str(key): value for key, value in values.items()}


def card(file: Path) -> Card:
    """Read the card of a preset's file.

    Raises:
        UserError: it has none.
    """
    values = read(file)
    if "card" not in values:
        raise UserError(f"{file} has no card: wanted card with parameters, and text, license, source, hub as they are")
    kind = values["settings"].get("model_type")
    family = f"{values['encoder']} ({kind})" if kind else values["encoder"]
    return Card(family, f"{values['clip']['frames']} x {values['clip']['size']}", **values["card"])


def cards() -> dict[str, Card]:
    """Cards of every encoder that `ckpt=` knows by name, the embedded demo first."""
    by_name = {name: card(file) for name, file in presets().items()}
    demo = replace(by_name["vivit_demo"], hub="inside evalkit")
    return {"demo": demo, **by_name}


def trained_on(ckpt: str) -> dict[str, str] | None:
    """What a checkpoint's weights were trained on, by the preset or the model of the hub that `ckpt=` names.

    Random weights were trained on nothing; None where it is not known.
    """
    if ckpt.startswith("random:"):
        return {}
    known = _trained_on()
    return known.get(ckpt) or known.get(ckpt.partition("@")[0])


@functools.cache
def _trained_on() -> dict[str, dict[str, str]]:
    """By name of a preset and by its model on the hub, where it is published."""
    known: dict[str, dict[str, str]] = {}
    for name, preset in cards().items():
        of_preset = {name: preset.trained_on, preset.hub: preset.trained_on, **preset.others}
        known |= {key: dict(data_sets) for key, data_sets in of_preset.items() if key and data_sets}
    return known
