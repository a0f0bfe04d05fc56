"""Scores that other tools wrote."""

import importlib
import json
from pathlib import Path

import pytest

from evalkit.errors import UserError

foreign = importlib.import_module("evalkit.leaderboard.other_tools").read_scores


def test_subsets_filters_and_versions_are_told(tmp_path: Path) -> None:
    task = tmp_path / "results" / "org__one" / "abc" / "Video.json"
    task.parent.mkdir(parents=True)
    subset = {
        "hf_subset": "en",
        "languages": ["eng-Latn"],
        "f1": 0.25,
        "main_score": 0.5,
        "runs": [{"f1": 0.2}],
        "bad": None,
    }
    values = {"task_name": "Video", "dataset_revision": "1", "mteb_version": "2.20", "scores": {"test": [subset]}}
    task.write_text(json.dumps(values))
    (tmp_path / "results_x.json").write_text(
        json.dumps(
            {
                "results": {
                    "gsm": {
                        "alias": "gsm",
                        "exact_match,strict": 0.5,
                        "exact_match_stderr,strict": 0.1,
                        "bleu,none": 30.0,
                    }
                },
                "configs": {"gsm": {"test_split": "test"}},
                "config": {"model_args": "pretrained=a/b"},
            }
        )
    )
    (tmp_path / "other.json").write_text("[1, 2]")
    found = [one[:6] for one in foreign(tmp_path)]
    assert found == [
        ("org/one", "Video", "test/en", "main_score", 50.0, "mteb 2.20"),
        ("org/one", "Video", "test/en", "f1", 25.0, "mteb 2.20"),
        ("pretrained=a/b", "gsm", "test/strict", "exact_match", 50.0, "lm-eval"),
        ("pretrained=a/b", "gsm", "test", "bleu", 30.0, "lm-eval"),
    ]


def test_what_is_no_score_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no score of mteb or lm-eval"):
        foreign(tmp_path / "nowhere")
    (tmp_path / "cut.json").write_text('{"results": ')
    with pytest.raises(UserError, match=r"cut\.json: not as published: JSONDecodeError"):
        foreign(tmp_path)
    (tmp_path / "cut.json").write_text(
        json.dumps(
            {"task_name": "V", "dataset_revision": "1", "scores": {"test": [{"hf_subset": "default", "main_score": 1}]}}
        )
    )
    with pytest.raises(UserError, match="whose scores"):
        foreign(tmp_path / "cut.json")
