"""What an encoder was trained on, as far as it is published, and which scores that touches.

`trained_on` names data sets, each with what of it was used: {"kinetics400": "labels", "webvid": "captions"}. A data set
has the name of its task; one that no task scores has a name of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from evalkit import plugins
from evalkit.errors import UserError, nearest

KINDS = ("labels", "captions", "videos", "images", "data")  # the last where it is not said
NOTHING = "none"
# Tasks that share videos: each longer Kinetics holds most of the one before, and the clips of VATEX and of AVA-Kinetics
# are Kinetics'. What is split or asked otherwise has the name of the data set before its own, as activitynet_captions.
SHARED = (("kinetics400", "kinetics600", "kinetics700", "vatex", "ava_kinetics"),)
MINI = "@mini"
_NAME = re.compile(r"[a-z0-9_]+(@mini)?")


def parse(word: str) -> dict[str, str]:
    """What `trained_on=` says: names with commas between them, each with `:labels` and so on, or `none`.

    Raises:
        UserError: a name is nearly that of a task, is given twice, or says what there is not.
    """
    if word == NOTHING:
        return {}
    trained_on: dict[str, str] = {}
    known = {*plugins.names("task"), *(name for group in SHARED for name in group)}
    for part in word.split(","):
        name, colon, kind = part.strip().partition(":")
        if not _NAME.fullmatch(name) or (colon and kind not in KINDS):
            raise UserError(
                f"trained_on={word}: {part!r}: wanted the name of a data set, alone or with one of :{', :'.join(KINDS)}"
            )
        near = nearest(name, known)
        if name.removesuffix(MINI) not in known and near:
            raise UserError(f"trained_on={word}: there is no task {name!r}. Did you mean {near!r}?")
        if name in trained_on:
            raise UserError(f"trained_on={word}: {name} is given twice")
        trained_on[name] = kind or KINDS[-1]
    return trained_on


def in_word(trained_on: Mapping[str, str]) -> str:
    """What `parse` makes these of."""
    return ",".join(f"{name}:{kind}" for name, kind in trained_on.items()) or NOTHING


def read(stored: Mapping[str, Any]) -> dict[str, str]:
    """What a file says, without what this module would not write."""
    return {name: kind for name, kind in stored.items() if _NAME.fullmatch(name) and kind in KINDS}


def seen(task: str, trained_on: Mapping[str, str]) -> dict[str, str]:
    """Of the data sets that an encoder was trained on, those that share videos with a task.

    Args:
        task: its name, with @mini for a miniature, whose generated videos no real data set has.
        trained_on: what of each data set was used.
    """
    return {name: kind for name, kind in trained_on.items() if _share_videos(task, name)}


def in_words(trained_on: Mapping[str, str]) -> str:
    """Data sets as text, such as `kinetics400 (labels), webvid`."""
    return ", ".join(name if kind == KINDS[-1] else f"{name} ({kind})" for name, kind in trained_on.items())


def _share_videos(first: str, second: str) -> bool:
    """Whether two tasks, or a task and a data set, have videos in common."""
    if first.endswith(MINI) != second.endswith(MINI):
        return False
    first, second = first.removesuffix(MINI), second.removesuffix(MINI)
    if _is_of(first, second) or _is_of(second, first):
        return True
    return any(_any_of(first, group) and _any_of(second, group) for group in SHARED)


def _is_of(task: str, data_set: str) -> bool:
    return task == data_set or task.startswith(f"{data_set}_")


def _any_of(task: str, data_sets: Iterable[str]) -> bool:
    return any(_is_of(task, data_set) for data_set in data_sets)
