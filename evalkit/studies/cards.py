"""Reference cards, configs/cards/NAME.yaml: a run line of a public checkpoint, and the number that is published for it.

Read without torch, so that `evalkit verify list` is fast.
"""

from __future__ import annotations

import functools
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.config import named
from evalkit.datasets import published
from evalkit.errors import UserError, among, in_line
from evalkit.weights import presets

TFLOPS = 100  # that the minutes of a list are told by: a third of what an A100 does at most in bfloat16


@dataclass(frozen=True)
class Card:
    """One file of configs/cards/.

    Attributes:
        name: the file's, without .yaml.
        title: what is verified, in one line.
        run: the words of the line of `evalkit run`, by key, without those of `files`.
        expected: what is published for it, by metric, in the board's units; the first is the headline.
        source: a key of `evalkit.datasets.published.SOURCES`.
        row: the model, as published.csv names it.
        encoder: the preset that has the checkpoint's shape and license; the line's ckpt unless the file says another.
        files: where files are published that the line needs beside the checkpoint, by the key that takes it, or them.
        tolerance: how far a score may be from the published one, where the source says so; None takes the interval.
        gflops: of the encoder for one clip, in 1e9 operations, two per multiply-add.
        clips: that the encoder sees, of train and test; 0 where no published count tells.
        parameters: published for the checkpoint; 0 where none is printed to three digits.
    """

    name: str
    title: str
    run: Mapping[str, str]
    expected: Mapping[str, float]
    source: str
    row: str
    encoder: str
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tolerance: float | None = None
    gflops: float = 0.0
    clips: int = 0
    parameters: int = 0

    @property
    def task(self) -> str:
        """The benchmark."""
        return self.run["task"]

    @property
    def file_words(self) -> list[str]:
        """What the user adds to the line for `files`: key=FILE, or key=[FILE,FILE]."""
        return [
            f"{key}=FILE" if len(places) == 1 else f"{key}=[{','.join(['FILE'] * len(places))}]"
            for key, places in self.files.items()
        ]

    @property
    def preset(self) -> presets.Card:
        """Parameters and license of the checkpoint."""
        return _preset(self.encoder)

    @property
    def weights(self) -> str:
        """The model on the hub that has the weights; an address where they are on no hub."""
        ckpt = self.run["ckpt"]
        return (self.preset.hub or self.preset.url) if ckpt == self.encoder else ckpt

    @property
    def trained_on(self) -> Mapping[str, str]:
        """What the checkpoint was trained on, as far as that is published."""
        return presets.trained_on(self.run["ckpt"]) or {}

    @property
    def gigabytes(self) -> float:
        """Size of the encoder's weights in float32."""
        return self.preset.parameters * 4 / 1e9

    @property
    def minutes(self) -> float | None:
        """Of the encoder's arithmetic on one GPU, at `TFLOPS`; None where the clips are not known."""
        return self.gflops * self.clips / (TFLOPS * 1e3) / 60 if self.clips else None

    @property
    def printed(self) -> str:
        """Where the number is published."""
        where = published.SOURCES[self.source]
        return f"{where}, as another text quotes it" if self.is_secondary else where

    @property
    def is_secondary(self) -> bool:
        """Whether the number was read in another text than its source."""
        return any(number.is_secondary for number in self.numbers)

    @property
    def is_trained(self) -> bool:
        """Whether the published number is that of a head which was trained on the task."""
        return any(not number.adaptation.startswith("zero-shot") for number in self.numbers)

    @property
    def numbers(self) -> list[published.Number]:
        """The rows of published.csv that the card expects."""
        return [
            number
            for number in published.published_numbers()
            if (number.source, number.row, number.task) == (self.source, self.row, self.task)
            and self.expected.get(number.metric) == number.value
        ]


_presets = functools.cache(presets.presets)


@functools.cache
def _preset(name: str) -> presets.Card:
    return presets.card(_presets()[name])


def cards() -> dict[str, Path]:
    """The files in configs/cards/ by name."""
    return named.files("cards")


def read(name: str) -> Card:
    """The card of this name, or in this file.

    Raises:
        UserError: there is none, or a key of it is wrong.
    """
    file = named.find("cards", name, f"verify {name}", "`evalkit verify list` shows all")
    return _read(file, check=file != cards().get(file.stem))


def every() -> list[Card]:
    """All cards in configs/cards/, in the order of their names."""
    return [_read(file, check=False) for file in cards().values()]


def _read(file: Path, check: bool) -> Card:
    import yaml

    try:
        return _card(file, named.values(file, check))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{file}: no card: {in_line(error)[:300]}") from error


def _card(file: Path, values: Any) -> Card:
    """The card that a file's values describe.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: they describe none.
    """
    if not isinstance(values, dict):
        raise ValueError(f"wanted the keys {', '.join(_KEYS)}")
    for key in values:
        if key not in _KEYS:
            raise ValueError(f"unknown key {key!r}. Known: {', '.join(_KEYS)}")
    if missing := [key for key in _NEEDED if not values.get(key)]:
        raise ValueError(f"the key {missing[0]!r} is missing")
    line = _line(values["run"])
    encoder, known = values.get("encoder") or line["ckpt"], _presets()
    if encoder not in known:
        all_shown = "`evalkit list encoders` shows all"
        raise ValueError(f"encoder: no preset named {encoder!r}.{among(str(encoder), known, all_shown)}")
    if str(values["source"]) not in published.SOURCES:
        raise ValueError(f"source: {values['source']!r} is not one of {', '.join(published.SOURCES)}")
    card = Card(
        name=file.stem,
        title=named.summary(file),
        run=line,
        expected={str(metric): _number("expected", value) for metric, value in _mapping(values, "expected").items()},
        source=values["source"],
        row=str(values["row"]),
        encoder=encoder,
        files=_files(_mapping(values, "files")),
        tolerance=None if values.get("tolerance") is None else _number("tolerance", values["tolerance"]),
        gflops=_number("gflops", values.get("gflops", 0)),
        clips=int(_number("clips", values.get("clips", 0))),
        parameters=int(_number("parameters", values.get("parameters", 0))),
    )
    if {number.metric for number in card.numbers} != set(card.expected):
        raise ValueError(_unpublished(card))
    return card


def _unpublished(card: Card) -> str:
    """What is wrong with the expected numbers of a card, which leaderboard/published.csv has not."""
    known = [number for number in published.published_numbers() if number.source == card.source]
    if card.row not in (rows := {number.row for number in known}):
        return f"row: {card.source} has no model {card.row!r} in leaderboard/published.csv.{among(card.row, rows, '')}"
    there = {n.metric: n.value for n in known if (n.row, n.task) == (card.row, card.task)}
    printed = ", ".join(f"{metric} {value:g}" for metric, value in there.items())
    expected = ", ".join(f"{metric} {value:g}" for metric, value in card.expected.items())
    return (
        f"expected: {expected} is not what leaderboard/published.csv has of {card.row} on {card.task}: "
        f"{printed or 'nothing'}"
    )


def _line(run: object) -> dict[str, str]:
    """The words of `run` by their keys, the task first.

    Raises:
        ValueError: they are none, or name no task or no checkpoint.
    """
    try:
        words = shlex.split(run) if isinstance(run, str) else [str(run)]
    except ValueError as error:
        raise ValueError(f"run: {error}") from error
    if wrong := [word for word in words if "=" not in word]:
        raise ValueError(f"run: expected words key=value, got {wrong[0]!r}")
    line = dict(word.split("=", 1) for word in words)
    if absent := [key for key in ("task", "ckpt") if not line.get(key)]:
        raise ValueError(f"run: it names no {absent[0]}: add {absent[0]}=NAME")
    return {"task": line["task"], **line}


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[Any, Any]:
    held = values.get(key) or {}
    if not isinstance(held, Mapping):
        raise ValueError(f"{key}: wanted names with values, {{name: value}}, got {held!r}")
    return held


def _files(places: Mapping[Any, Any]) -> dict[str, tuple[str, ...]]:
    if wrong := [key for key in places if "." not in str(key)]:
        raise ValueError(f"files: {wrong[0]!r} is no key of the line, such as adapter.probe")
    return {str(key): tuple(map(str, place if isinstance(place, list) else [place])) for key, place in places.items()}


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{key}: {value!r} is no number from 0 on")
    return float(value)


_NEEDED = ("run", "expected", "source", "row")
_KEYS = (*_NEEDED, "encoder", "files", "tolerance", "gflops", "clips", "parameters")


def table(read_cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """A row per card: what it needs, what is published, and minutes on one GPU."""
    rows: list[tuple[str, ...]] = [("card", "data set", "weights", "license", "published", "minutes")]
    for card in read_cards:
        numbers = ", ".join(f"{metric} {value:g}" for metric, value in card.expected.items())
        minutes = (
            "-" if card.minutes is None else f"{card.minutes:,.0f}" if card.minutes >= 10 else f"{card.minutes:.1f}"
        )
        mark = " (quoted)" if card.is_secondary else ""
        count = sum(map(len, card.files.values()))
        files = f" + {count} file{'s' * (count > 1)}" if count else ""
        size = f"{card.gigabytes:.1f} GB{files}"
        rows.append((card.name, card.task, size, card.preset.license, numbers + mark, minutes))
    return rows
