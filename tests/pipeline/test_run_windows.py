"""A run of a task whose videos are sequences of windows: failures, the order of windows, what is encoded again."""

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.results import run_folder, validate
from tests.given import write
from tests.pipeline.tiny_world import run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("decoding_here")]

SMALL = ["adapter.length=8", "adapter.epochs=1", "clip.window=0.5", "clip.window_stride=0.25", "workers=1", "threads=1"]


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory, films: Path) -> Path:
    """A json of segments of eight films, of which one of test is broken and one is shorter than it says."""
    root = tmp_path_factory.mktemp("segments")
    database: dict[str, Any] = {}
    for number, film in enumerate(sorted(films.glob("*.mp4"))[:8]):
        (root / film.name).write_bytes(film.read_bytes() if number else b"no film at all")
        annotations = [{"segment": [0.25, 1.0], "label": "left"}, {"segment": [1.25, 1.75 + number], "label": "right"}]
        subset = "validation" if number < 4 else "training"
        database[film.stem] = {"subset": subset, "duration": 9.0 if number == 1 else 2.0, "annotations": annotations}
    return write(root / "segments.json", {"database": database})


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, segments: Path, tiny: Path) -> Path:
    """A run of G-TAD."""
    return run(tmp_path_factory.mktemp("first"), "task=tal", f"data.root={segments}", f"ckpt={tiny}", *SMALL)


def test_videos_that_cannot_be_read_to_their_end_have_failed(first: Path) -> None:
    record, rows = run_folder.load(first), run_folder.load_rows(first)
    assert validate.validate(first) == [] and record["status"] == "partial"
    assert (
        record["task"]["protocol"]["views"]["window"] == 0.5
        and record["task"]["protocol"]["views"]["window_stride"] == 0.25
    )
    reasons = {row.id: row.failure for row in rows}
    assert "not a video file" in str(reasons["00"])
    assert reasons["01"] and "the end of the video" in reasons["01"]
    assert reasons["02"] is None and reasons["03"] is None
    assert record["scores"][0]["metric"] == "mAP" and record["scores"][0]["n"] == 4
    assert record["scores"][0]["bounds"][1] > record["scores"][0]["bounds"][0]
    assert [control["name"] for control in record["controls"]] == ["shuffled"]
    for row in rows[2:]:
        assert row.prediction and all(0 <= start < end <= 2 for start, end, *_ in row.prediction)
    # Of three films to learn from, one to choose on and two to test on, windows at 0, 0.25, .., 1.5 s; of the one that
    # is shorter than it says also those that end up to a second after it, at 1.75, .., 2.5 s.
    assert record["cost"]["encoder_forwards"] == 6 * 7 + 11


def test_another_head_encodes_nothing(first: Path, segments: Path, tiny: Path, tmp_path: Path) -> None:
    words = ["task=tal", f"data.root={segments}", f"ckpt={tiny}", *SMALL, "adapter.head=actionformer"]
    other = run_folder.load(run(tmp_path, *words))
    assert other["cost"]["encoder_forwards"] == 0 and other["cost"]["cache_hits"] >= 6 * 7
    assert other["adapter"]["settings"]["head"] == "actionformer" and len(json.dumps(other)) < 100_000


def test_windows_that_overlap_otherwise_share_what_they_can(
    first: Path, segments: Path, tiny: Path, tmp_path: Path
) -> None:
    words = ["task=tal", f"data.root={segments}", f"ckpt={tiny}", *SMALL[:3], "workers=1", "threads=1"]
    other = run_folder.load(run(tmp_path, *words))  # one after another: every second window of the first run
    assert other["cost"]["encoder_forwards"] == 0
