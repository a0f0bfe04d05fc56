"""EPIC-KITCHENS-100 action anticipation, one second ahead (https://arxiv.org/abs/2006.13256)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from evalkit.api import Example, Task
from evalkit.datasets import protocols, published
from evalkit.datasets.actions.epic_kitchens import EPIC_KITCHENS, Action, read_epic_kitchens
from evalkit.datasets.files import LabeledSplits, Span
from evalkit.datasets.miniature import miniature
from evalkit.metrics import class_mean_recall5
from evalkit.mini import classes

AHEAD = 1.0  # seconds between what is seen and what is predicted
FRAME = 1 / 8  # seconds of the first frame, which is seen where nothing lies before
SEEN = protocols.ANTICIPATION.frames or 0

Protocol = Literal["official", "vjepa2"]
What = Literal["action", "verb", "noun"]


DATA = EPIC_KITCHENS


def task(
    root: Path = Path("data/epic_kitchens"),
    mini: bool = False,
    protocol: Protocol = "official",
    what: What = "action",
) -> Task:
    """Predicts an action before it begins, scored by class-mean recall at 5.

    Files: those of task epic_kitchens. Under `official`, as the challenge has it, a clip ends one second before the
    action's start, and all actions of validation count. Under `vjepa2`, as V-JEPA 2's code has it
    (https://github.com/facebookresearch/vjepa2, evals/action_anticipation_frozen), it ends one second before the
    action's END, so that most actions are seen before they are named, and those that train has not are left out: scores
    of the two are far apart and never beside each other. 32 frames, eight a second, in both; a clip that would begin
    before its video shows its last frame again, V-JEPA 2's its first.

    Under `vjepa2`, classes without an example in validation are never the answer (adapter.test_classes), and classes
    have the order of that code, a Python set's, so that its released classifiers fit: with their predictor beside the
    encoder, ckpt=vjepa2_large_ahead. What differs: eight frames a second, where it takes every sixth or seventh of 50
    or 60; three runs for three queries in one classifier; and of training its focal loss and its clips, drawn around
    the same moment.

    Args:
        root: folder with the csv files and the videos.
        mini: the last of three things in the films of diving48's miniature, told by which two were there before; its
            motion is a verb, its color a noun.
        protocol: official or vjepa2: when a clip ends, and which actions count.
        what: what is predicted: action (verb and noun together), verb or noun.
    """
    span = _before_start if protocol == "official" else _before_end
    splits = classes.last_step(span, _LABEL[what]) if mini else _read(root, protocol, what)
    facts: dict[str, Any] = {
        "protocol": protocol if what == "action" else f"{protocol}, {what}",
        "split": "validation",
        "sizes": DATA.sizes if protocol == "official" else {"train": DATA.sizes["train"]},
        "license": DATA.license,
    }
    if mini:
        facts = miniature(facts) | protocols.MINI
    elif protocol == "vjepa2":
        facts = protocols.prescribed("vjepa2", "epic_kitchens_anticipation") | facts | {"version": 2}
    else:
        facts |= {"views": protocols.ANTICIPATION, "settings": {**protocols.PROBE, "epochs": 20}}
    if not mini and what == "action" and protocol == "vjepa2":
        facts["published"] = published.rows("epic_kitchens_anticipation", "recall@5", "frozen", protocol=protocol)
    return Task(
        train=splits.train,
        test=splits.test,
        classes=splits.classes,
        prepare_videos=splits.prepare_videos,
        score=class_mean_recall5,
        chance=min(100.0, 500 / len(splits.classes)),
        source=DATA.source,
        **facts,
    )


def _before_start(action: Span) -> Span:
    """The four seconds that end one second before an action's start, as far as they are in the video."""
    return _seen(action[0] - AHEAD)


def _before_end(action: Span) -> Span:
    """The four seconds that end one second before an action's end."""
    return _seen(action[1] - AHEAD)


def _seen(end: float) -> Span:
    end = max(end, FRAME)
    return max(0.0, end - SEEN / protocols.ANTICIPATION.fps), end


_LABEL: dict[What, Callable[[str, str], str]] = {
    "action": lambda verb, noun: f"{verb} {noun}",
    "verb": lambda verb, noun: verb,
    "noun": lambda verb, noun: noun,
}


def _read(root: Path, protocol: Protocol, what: What) -> LabeledSplits:
    actions = read_epic_kitchens(root)

    def key(row: Action) -> tuple[int, int]:
        return (row.verb if what != "noun" else 0, row.noun if what != "verb" else 0)

    pairs = {(row.verb, row.noun) for row in actions.train}
    tested = [row for row in actions.validation if protocol == "official" or (row.verb, row.noun) in pairs]
    in_train = {key(row) for row in actions.train}
    keys = sorted(in_train | {key(row) for row in tested})
    if protocol == "vjepa2" and what == "action":
        keys = list(in_train)  # in the order in which CPython goes through a set: sets of numbers are sorted, too
    number = {key: i for i, key in enumerate(keys)}
    before = _before_start if protocol == "official" else _before_end

    def examples(rows: Sequence[Action]) -> list[Example]:
        return [Example(row.name, row.video, number[key(row)], before(row.span)) for row in rows]

    names = tuple(_LABEL[what](actions.verbs[verb], actions.nouns[noun]) for verb, noun in keys)
    return LabeledSplits(examples(actions.train), examples(tested), names)
