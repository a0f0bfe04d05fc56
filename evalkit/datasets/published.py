"""Published numbers of papers, from leaderboard/published.csv, to compare measured scores with."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import evalkit
from evalkit.datasets.files import parsing_errors_at, read_table

SOURCES = {
    "longvivit": "https://arxiv.org/abs/2312.07395",
    "videoprism": "https://arxiv.org/abs/2402.13217v3",
    "videoprism-code": "https://github.com/google-deepmind/videoprism (README at d481d91)",
    "videoglue": "https://arxiv.org/abs/2307.03166v3",
    "vjepa": "https://github.com/facebookresearch/jepa (README at 51c59d5)",
    "vjepa2": "https://arxiv.org/abs/2506.09985",
    "vjepa2-code": "https://github.com/facebookresearch/vjepa2 (README at c2963a4)",
    "pe": "https://github.com/facebookresearch/perception_models (apps/pe/README.md at 3e352cc)",
    "internvideo2": "https://github.com/OpenGVLab/InternVideo (InternVideo2 at 3965eef)",
    "umt": "https://github.com/OpenGVLab/unmasked_teacher (at 4fb4049)",
    "videomae": "https://github.com/MCG-NJU/VideoMAE (MODEL_ZOO.md)",
    "videomaev2": "https://github.com/OpenGVLab/VideoMAEv2 (docs/MODEL_ZOO.md)",
}

# Ends of names of protocols that share task and metric with published numbers of something else: boxes that are given,
# not detected; captions that are scored over videos, of segments given, cut evenly or proposed.
UNPUBLISHED = ("truth", "given", "even", "proposed")
QUOTED = "quoted"  # the last word of the note of a number that was read in another text than its source


class Number(NamedTuple):
    """One published number.

    Attributes:
        source: a key of `SOURCES`.
        table: of that source.
        row: the model, as the source names it.
        task: evalkit's name of the benchmark; `videoglue` for what is taken over several.
        split: what was scored.
        adaptation: frozen, mlap, adapter, finetune, zero-shot, fine-tuned, all, or task-specialized; and zero-shot,
            re-ranked.
        metric: evalkit's name of it.
        value: as printed; rates in 0..100.
        note: the setting of the task that the number is of, such as data.what=paragraph; remarks after that.
    """

    source: str
    table: str
    row: str
    task: str
    split: str
    adaptation: str
    metric: str
    value: float
    note: str

    @property
    def setting(self) -> str:
        """The task's setting that the number refers to, such as `data.what=paragraph`; empty if there is none."""
        return self.note.partition("; ")[0] if self.note.startswith("data.") else ""

    @property
    def is_secondary(self) -> bool:
        """Whether it was read where another text quotes the source."""
        return self.note.endswith(QUOTED)


@functools.cache
def published_numbers() -> Sequence[Number]:
    """All published numbers, in the order of the file."""
    (file,) = (path for home in evalkit.__path__ if (path := Path(home) / "leaderboard/published.csv").is_file())
    numbers = []
    for where, row in read_table(file, Number._fields):
        with parsing_errors_at(where):
            SOURCES[row["source"]]
            numbers.append(Number(**{**row, "value": float(row["value"])}))  # type: ignore[arg-type]
    return numbers


def rows(task: str, metric: str, adaptation: str, split: str = "", protocol: str = "") -> dict[str, float]:
    """Value by model, of the first source that publishes it, as in `Task.published`.

    Args:
        task: evalkit's name of it.
        metric: its headline.
        adaptation: as `Number` has it.
        split: only used if several are published; empty: any.
        protocol: the name of the task's; one of `UNPUBLISHED` has no numbers. One that numbers name, by
            data.protocol=NAME, has these and no others.
    """
    if protocol.endswith(UNPUBLISHED):
        return {}
    key = (task, metric, adaptation)
    matching = [
        n for n in published_numbers() if (n.task, n.metric, n.adaptation) == key and "training data" not in n.note
    ]
    of_protocol = [number for number in matching if number.setting == f"data.protocol={protocol}"]
    matching = of_protocol or [n for n in matching if not n.setting.startswith("data.protocol=")]
    several = split and len({number.split for number in matching}) > 1
    values: dict[str, float] = {}
    for number in matching:
        if not several or number.split == split:
            values.setdefault(number.row, number.value)
    return values
