"""EPIC-KITCHENS-100: verbs and nouns of egocentric kitchen actions (https://arxiv.org/abs/2006.13256)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.api import Example, Task
from evalkit.datasets import protocols, published
from evalkit.datasets.actions.epic_kitchens import EPIC_KITCHENS, Action, read_epic_kitchens
from evalkit.datasets.files import LabeledSplits
from evalkit.datasets.miniature import miniature
from evalkit.metrics import mini_verb_noun_accuracy, verb_noun_accuracy
from evalkit.mini import classes, world

DATA = EPIC_KITCHENS


def task(root: Path = Path("data/epic_kitchens"), mini: bool = False, protocol: protocols.Name = "videoglue") -> Task:
    """Classifies the verb (of 97) and the noun (of 300) of an action, which is right if both are.

    Files as published: EPIC_100_train.csv, EPIC_100_validation.csv, EPIC_100_verb_classes.csv and
    EPIC_100_noun_classes.csv, here or in annotations/, and the videos as <video_id>.MP4 in any folder there, such as
    P01/videos/. Each class has a sigmoid of its own; of the verbs the likeliest counts, and of the nouns. Validation is
    what papers report. No paper here has a protocol for a frozen encoder that is known: frames and training are SSv2's.

    Args:
        root: folder with the csv files and the videos.
        mini: the films of kinetics400's miniature: a verb per motion, a noun per color.
        protocol: defines frames, views, augmentation and training (evalkit/datasets/protocols.py); not used by the
            miniature.
    """
    splits = classes.verbs_and_nouns() if mini else _read(root)
    facts: dict[str, Any] = {"split": "validation", "sizes": DATA.sizes, "license": DATA.license}
    if mini:
        facts = miniature(facts) | protocols.MINI
    else:
        fields = protocols.prescribed(protocol, "epic_kitchens")
        facts |= fields | {"published": published.rows("epic_kitchens", "action", fields["adapter"] or "frozen")}
    verbs = len(world.ACTIONS) if mini else 97
    return Task(
        train=splits.train,
        test=splits.test,
        classes=splits.classes,
        prepare_videos=splits.prepare_videos,
        score=mini_verb_noun_accuracy if mini else verb_noun_accuracy,
        chance=100 / verbs / (len(splits.classes) - verbs),
        source=DATA.source,
        **facts,
    )


def _read(root: Path) -> LabeledSplits:
    actions = read_epic_kitchens(root)
    verbs = len(actions.verbs)

    def examples(rows: Sequence[Action]) -> list[Example]:
        return [Example(row.name, row.video, (row.verb, verbs + row.noun), row.span) for row in rows]

    nouns = [name if name not in actions.verbs else f"{name} (noun)" for name in actions.nouns]
    return LabeledSplits(examples(actions.train), examples(actions.validation), (*actions.verbs, *nouns))
