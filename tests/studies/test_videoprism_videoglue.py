"""The studies of VideoPrism's training and of VideoGLUE's adaptations: what they ask, and VideoGLUE's score."""

from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import UserError
from evalkit.metrics import videoglue
from evalkit.studies import files
from evalkit.studies.estimates import Outcome, Pairs
from evalkit.studies.plan import plan
from evalkit.studies.report import report
from tests.given import write

STUDY = {
    "title": "t",
    "x": "adapter.trainable_flops",
    "y": "top1",
    "cells": [{"name": name, "run": "task=kinetics400"} for name in ("a", "b", "c", "d")],
    "videoglue": {"frozen": "a", "mlap": "b", "adapter": "c", "finetune": "d"},
}


@pytest.mark.parametrize("name", ["videoprism_ablation", "videoglue_adaptation"])
def test_each_line_of_a_study_is_of_keys_that_there_are(name: str, tmp_path: Path) -> None:
    """Of the miniature and of the benchmarks themselves."""
    study = files.read(name)
    for words in (["mini=true", "ckpt=demo"], ["ckpt=random:videoprism_lvt_base"]):
        planned = plan(study, [*words, f"out={tmp_path}"])
        assert {cell.name for cell in study.cells} == planned.runs.keys()
        assert all(len(runs) == 2 for runs in planned.runs.values())


def test_the_ablation_goes_on_from_one_first_stage(tmp_path: Path) -> None:
    planned = plan(files.read("videoprism_ablation"), ["mini=true", "ckpt=demo", f"out={tmp_path}"])
    assert [len(stage) for stage in planned.stages()] == [2, 4, 12]
    first = planned.adapts["contrastive"][0].config.options.out
    settings = {}
    for name in ("two stages", "with global distillation", "with shuffling, without global", "with both"):
        (cell,) = planned.adapts[name]
        assert cell.config.options.ckpt == str(first)
        adapter = cell.config.adapter
        settings[name] = adapter.get("global_weight", 1.0), adapter.get("shuffle", True)
    assert [*settings.values()] == [(0.0, False), (1.0, False), (0.0, True), (1.0, True)]


def outcomes(flops: float) -> dict[str, list[Outcome]]:
    """Runs of the four adaptations that score 50, 60, 70 and 80 and cost so many times 1, 2, 3 and 4 operations."""
    made = {}
    for k, name in enumerate("abcd"):
        record: dict[str, Any] = {
            "data": {"n_failed": 0, "n_expected": 9},
            "task": {"name": "kinetics400@mini"},
            "scores": [{"metric": "top1", "value": 50.0 + 10 * k, "ci95": [0.0, 100.0]}],
            "adapter": {"trainable_flops": flops * (k + 1)},
        }
        made[name] = [Outcome(runs=[(Path(name), record)])]
    return made


def test_the_videoglue_score_is_printed_with_what_it_is_made_of(tmp_path: Path) -> None:
    study = files.read(str(write(tmp_path / "s.yaml", STUDY)))
    found = report(study, outcomes(10e9), True, Pairs())
    means = {"frozen": 50.0, "mlap": 60.0, "adapter": 70.0, "finetune": 80.0}
    score = videoglue.score(means, {name: 10.0 * (k + 1) for k, name in enumerate(means)})
    wanted = "a 50.0 at 10 GFLOPs, b 60.0 at 20 GFLOPs, c 70.0 at 30 GFLOPs, d 80.0 at 40 GFLOPs."
    assert found.sentences[-1] == f"VideoGLUE score {score:.1f}: {wanted}"


def test_why_there_is_no_videoglue_score_is_said(tmp_path: Path) -> None:
    study = files.read(str(write(tmp_path / "s.yaml", STUDY)))
    found = report(study, outcomes(1e6), True, Pairs())
    assert found.sentences[-1].startswith(
        "No VideoGLUE score: adaptation 'frozen' costs 0.001; wanted a number above 1"
    )
    missing = outcomes(1e6) | {"c": [Outcome(failure="killed")]}
    assert not any("VideoGLUE" in sentence for sentence in report(study, missing, True, Pairs()).sentences)


def test_a_videoglue_score_of_cells_that_are_not_there_is_told(tmp_path: Path) -> None:
    for change, message in (
        ({"mlap": "e"}, r"videoglue.mlap: unknown cell 'e'"),
        ({"lora": "a"}, r"videoglue: unknown key 'lora'"),
    ):
        values = {**STUDY, "videoglue": {**STUDY["videoglue"], **change}}  # type: ignore[dict-item]
        with pytest.raises(UserError, match=message):
            files.read(str(write(tmp_path / "s.yaml", values)))
