"""Val that is carved from train has videos to choose on, or says which could not be read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evalkit.api import Example, Views
from evalkit.errors import UserError
from evalkit.features.batches import FeatureSet, InMemoryFeatures
from evalkit.features.extract import Cost
from evalkit.features.feature_cache import SourceFeatures
from evalkit.pipeline.training import fit
from evalkit.pipeline.training.fit import split_val
from evalkit.runtime.ranks import ALONE


def test_val_takes_no_video_that_is_missing_where_others_are_there() -> None:
    rows = [Example(str(i), Path(f"{i}.mp4")) for i in range(40)]
    _, val = split_val(rows, 0)
    missing = {val[0].video, val[1].video}
    train, other = split_val(rows, 0, exists=lambda video: video not in missing)
    assert len(other) == len(val) and not missing & {example.video for example in other}
    assert {example.video for example in val[2:]} < {example.video for example in other}
    assert missing <= {example.video for example in train}  # where they are named


def test_val_that_leaves_nothing_to_learn_from_is_told_before_anything_is_encoded() -> None:
    rows = [Example(str(i), Path(f"{i // 3}.mp4")) for i in range(6)]
    with pytest.raises(UserError, match=r"^1 of 1 training videos are there.*held out .*\(0.mp4\): none is left"):
        split_val(rows[:3], 0)
    with pytest.raises(UserError, match=r"^1 of 2 training videos are there.*\(1.mp4\)"):
        split_val(rows, 0, exists=lambda video: video == Path("1.mp4"))
    assert [len(part) for part in split_val(rows, 0)] == [3, 3]
    assert split_val(rows, 0, exists=lambda video: False) == (rows, [])  # where they are named


def test_val_of_which_nothing_can_be_read_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(reader: Any, wanted: Any, looks: Any, label: str, *_: Any) -> FeatureSet:
        failed = [SourceFeatures(source, failure="is broken") for source in wanted if "val" in label]
        first = {} if failed else {source: i for i, source in enumerate(wanted)}
        return FeatureSet(InMemoryFeatures(torch.zeros(len(first), 1)), first, failed)

    monkeypatch.setattr(fit, "gather", gather)
    experiment: Any = SimpleNamespace(
        adapter=SimpleNamespace(trains_encoder=False),
        reader=None,
        extractor=SimpleNamespace(views=Views(), cost=Cost()),
        ranks=ALONE,
    )
    rows = [Example(str(i), Path(f"{i}.mp4")) for i in range(5)]
    with pytest.raises(
        UserError, match=r"^none of the 1 videos to choose on could be read; 4.mp4: is broken; repair or"
    ):
        fit._read(experiment, rows[:4], rows[4:], (None,))
