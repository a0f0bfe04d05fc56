"""Several retrieval tasks combined: trained alternately, scored by their mean."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evalkit import plugins
from evalkit.api import Data, Example, Task
from evalkit.datasets.miniature import LICENSE
from evalkit.errors import UserError, among
from evalkit.metrics.retrieval import mean_retrieval

ADAPTER = "retrieval"


DATA = Data(
    source="https://arxiv.org/abs/2402.13217",
    license="those of its tasks",
    files={
        "msrvtt/": "the folders of the tasks that data.of= names, called as those tasks' own data.root= below "
        "data/; each as its task says",
    },
)


def task(root: Path = Path("data"), of: str = "msrvtt:1,vatex:1", mini: bool = False) -> Task:
    """Retrieves videos by caption, and captions by video, in several retrieval tasks at once.

    For VideoPrism's first stage (https://arxiv.org/abs/2402.13217): each training batch is of one task, drawn by the
    weights. Each task is made as by its own defaults, of its folder or file in `root`. Val and test are those of all
    tasks, each searched by itself, and scored by the mean over the tasks; of a task without a val split, a tenth of its
    training videos is chosen on.

    Args:
        root: folder that holds what the tasks' own data.root are by default in data/, such as msrvtt/ and vatex/.
        of: names of retrieval tasks, with commas between them, each with its weight after a colon; 1 if there is none.
        mini: the miniature of each.
    """
    weights = _weights(of)
    tasks = {}
    for name in weights:
        module, make = plugins.module_and_factory("task", name)
        if getattr(module, "ADAPTER", "") != ADAPTER:
            raise UserError(f"data.of={of}: {name} is not a retrieval task")
        default = inspect.signature(make).parameters["root"].default
        tasks[name] = make(mini=True) if mini else make(root / Path(default).name)
    views = {name: made.views for name, made in tasks.items()}
    first = next(iter(views))
    if other := next((name for name in views if views[name] != views[first]), None):
        raise UserError(f"data.of={of}: {first} and {other} take other frames of a video; clip.* would be of one only")

    def prepare_videos(examples: Sequence[Example]) -> None:
        for name, made in tasks.items():
            if made.prepare_videos:
                made.prepare_videos([example for example in examples if example.kind == name])

    parts = {name: _splits(name, made) for name, made in tasks.items()}
    untrained = [name for name, (train, _, _) in parts.items() if not train]
    if untrained and len(untrained) < len(parts):
        raise UserError(f"data.of={of}: {untrained[0]} has no train split to take batches from; leave it out")
    train, val, test = ([example for part in parts.values() for example in part[i]] for i in range(3))
    return Task(
        test=test,
        train=train,
        val=val,
        score=mean_retrieval,
        views=views[first],
        mixture=weights,
        controls=("shuffled", "single_frame"),
        chance=sum(made.chance for made in tasks.values()) / len(tasks),
        split="mini" if mini else "test",
        license=LICENSE if mini else "; ".join(dict.fromkeys(made.license for made in tasks.values())),
        source=DATA.source,
        prepare_videos=prepare_videos if any(made.prepare_videos for made in tasks.values()) else None,
    )


def _weights(of: str) -> dict[str, float]:
    """The weight of each task by its name.

    Raises:
        UserError: a name is unknown or given twice, or a weight is not a number above 0.
    """
    weights: dict[str, float] = {}
    known = [name for name in plugins.names("task") if name != "mixture"]
    for word in of.split(","):
        name, colon, text = word.strip().partition(":")
        if name not in known:
            all_shown = "`evalkit list tasks` shows all; a mixture is of retrieval tasks"
            raise UserError(f"data.of={of}: no task named {name!r}.{among(name, known, all_shown)}")
        if name in weights:
            raise UserError(f"data.of={of}: {name} is given twice")
        try:
            weight = float(text) if colon else 1.0
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            raise UserError(f"data.of={of}: the weight of {name} is {text!r}; expected a number above 0")
        weights[name] = weight
    return weights


def _splits(name: str, made: Task) -> tuple[list[Example], list[Example], list[Example]]:
    """Train, val and test of a task, whose videos and ids are known by its name before theirs."""

    def named(examples: Sequence[Example]) -> list[Example]:
        renamed = []
        for example in examples:
            video, *number = (example.target,) if isinstance(example.target, str) else example.target
            target = (f"{name}/{video}", *(number or [0]))
            renamed.append(replace(example, id=f"{name}/{example.id}", target=target, kind=name))
        return renamed

    return named(made.train), named(made.val), named(made.test)
