"""Val that is carved from train has videos to choose on, or says which could not be read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evalkit.api import Example, Task, Views
from evalkit.config.options import Trainer
from evalkit.errors import UserError
from evalkit.features.batches import FeatureSet, InMemoryFeatures
from evalkit.features.extract import Cost
from evalkit.features.feature_cache import SourceFeatures
from evalkit.metrics import accuracy
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
    with pytest.raises(UserError, match=r"^1 of 1 training video was found \(0.mp4\).*validation.*: none is left"):
        split_val(rows[:3], 0)
    with pytest.raises(UserError, match=r"^1 of 2 training videos was found \(1.mp4\)"):
        split_val(rows, 0, exists=lambda video: video == Path("1.mp4"))
    assert [len(part) for part in split_val(rows, 0)] == [3, 3]
    with pytest.raises(UserError, match=r"^none of 2 training videos was found, the first is 0.mp4; data.vid"):
        split_val(rows, 0, exists=lambda video: False)


def test_val_is_a_tenth_of_the_videos_that_are_there(caplog: pytest.LogCaptureFixture) -> None:
    """Of a list of 1,000 of which 50 were downloaded, and of one of which 500 were."""
    rows = [Example(str(i), Path(f"{i}.mp4")) for i in range(1000)]
    fit._warn_missing.cache_clear()
    for there, held_out, warned in ((50, 5, True), (2, 1, True), (500, 50, False)):
        caplog.clear()
        train, val = split_val(rows, 0, exists=lambda video, there=there: int(video.stem) < there)  # type: ignore[misc]
        assert len(val) == held_out and all(int(example.id) < there for example in val)
        assert len(train) == 1000 - held_out
        assert (f"found only {there} of 1,000 training videos" in caplog.text) == warned


def test_a_val_split_of_which_no_video_is_there_is_told_before_anything_is_encoded() -> None:
    rows = [Example(str(i), Path(f"{i}.mp4")) for i in range(4)]
    there = {row.video for row in rows[:2]}
    experiment: Any = SimpleNamespace(
        task=Task(train=rows[:2], val=rows[2:], test=rows, score=accuracy),
        extractor=SimpleNamespace(pool=SimpleNamespace(exists=there.__contains__)),
        adapter=SimpleNamespace(check_examples=lambda n: None),
    )
    with pytest.raises(UserError, match=r"^no video of the 2 validation examples was found, .* 2.mp4; data"):
        fit.training_examples(experiment, Trainer(), 0)
    there.add(rows[3].video)
    assert fit.training_examples(experiment, Trainer(), 0) == (rows[:2], rows[2:])


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
    with pytest.raises(UserError, match=r"^none of 1 video to choose on could be read; 4.mp4: is broken; repair or"):
        fit._read(experiment, rows[:4], rows[4:], (None,))
