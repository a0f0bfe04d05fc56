"""Checks what README and the demo's model card claim about its descriptions of films; part of `make board`.

    python bench/paragraphs.py build/board

Prints each claim with its number. The exit code is 1 if one does not hold.
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from evalkit.metrics.bootstrap import AdditiveScore
from evalkit.metrics.text.dense import dense_by_video


def predictions(board: Path, task: str) -> list[dict[str, Any]]:
    """The rows of the one run of a task's miniature by the demo."""
    (file,) = (board / f"demo/{task}@mini").glob("*/predictions.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def steps_of(text: str) -> list[str]:
    """The steps of a paragraph, without their ordinals."""
    return [part.partition(" ")[2] for part in text.split(", ")]


def color_and_verb(text: str) -> list[tuple[str, ...]]:
    """Of "a red ring moves left" red and moves left; what it hits or turns into is not looked at."""
    steps = [step.split() for step in steps_of(text)]
    return [(*step[1:2], *step[3 : 5 if step[3:4] == ["moves"] else 4]) for step in steps]


def value(score: AdditiveScore) -> float:
    """The score over all of its parts."""
    return float(score.of(score.parts.sum(0)))


def cut_evenly(paragraphs: dict[str, list[str]], segments: list[dict[str, Any]]) -> tuple[list[str], list[Any]]:
    """Steps of paragraphs as captions of equal parts of each video, and the targets with those parts as segments."""
    captions, targets = [], []
    for video, rows in groupby(segments, lambda row: row["target"]["video"]):
        steps = [row["target"] for row in rows]
        length = 180 / len(steps)
        for k, target in enumerate(steps):
            captions.append(paragraphs[video][k] if k < len(paragraphs[video]) else "")
            targets.append({**target, "segment": [k * length, (k + 1) * length]})
    return captions, targets


def main(board: Path) -> int:
    """Prints the claims; 1 where one does not hold."""
    rows = predictions(board, "youcook2_paragraph")
    targets = [row["target"][0] for row in rows]
    assert all(len(steps_of(target)) == 6 for target in targets)
    named = sum(color_and_verb(row["prediction"]) == color_and_verb(row["target"][0]) for row in rows)
    pairs = [zip(steps_of(row["prediction"]), steps_of(row["target"][0]), strict=False) for row in rows]
    equal = [sum(step == target for step, target in pair) for pair in pairs]
    segments = predictions(board, "youcook2_dense")
    given = value(dense_by_video([row["prediction"] for row in segments], [row["target"] for row in segments])["CIDEr"])
    paragraphs = {row["id"]: steps_of(row["prediction"]) for row in rows}
    cut = value(dense_by_video(*cut_evenly(paragraphs, segments))["CIDEr"])
    claims = {
        f"color and verb of all six steps in order: {named} of {len(rows)} paragraphs": named > 0.75 * len(rows),
        f"steps word for word: {sum(equal)} of {6 * len(rows)}": sum(equal) > 0.7 * 6 * len(rows),
        f"five steps or six word for word: {sum(n >= 5 for n in equal)} of {len(rows)} paragraphs": (
            sum(n >= 5 for n in equal) > len(rows) / 2
        ),
        f"CIDEr of given segments {given:.1f}, of a paragraph cut evenly {cut:.1f}": given > cut > 0,
    }
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'FAILS'}: {claim}")
    return int(not all(claims.values()))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
