"""Recalls and ranks of retrieval against torchmetrics, CLIP4Clip and Frozen in Time."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evalkit.errors import UserError
from evalkit.metrics.retrieval import retrieval
from tests.given import FIXTURES

EXPECTED = FIXTURES / "retrieval"


def percent(values: Any) -> float:
    return float(100 * np.mean(values))


def ranks_of(text: Any, video: Any, of: Sequence[int] | None = None) -> list[dict[str, float]]:
    """What the adapter predicts for texts of which each is about a video: one each, in order, where `of` is None."""
    import torch

    from evalkit.metrics.ranks import ranks

    numbers = torch.arange(len(video)) if of is None else torch.tensor(of)
    found = ranks(torch.from_numpy(np.asarray(text)), torch.from_numpy(np.asarray(video)), numbers)
    return [{"t2v": float(found.t2v[i]), "v2t": float(found.v2t[k])} for i, k in enumerate(numbers)]


def numbered(of: Sequence[int]) -> list[tuple[str, int]]:
    """Targets of captions of these videos."""
    return [(f"video{k}", list(of[:i]).count(k)) for i, k in enumerate(of)]


def test_recall_at_k_equals_torchmetrics_hit_rate() -> None:
    import torch
    from torchmetrics.functional.retrieval import retrieval_hit_rate

    similarity = np.random.default_rng(2).normal(size=(60, 60)) + np.eye(60)
    found = retrieval(ranks_of(similarity, np.eye(60)), range(60))
    for way, seen in (("t2v", similarity), ("v2t", similarity.T)):
        for k in (1, 5, 10):
            hits = [
                float(retrieval_hit_rate(torch.tensor(row), torch.arange(60) == i, top_k=k))
                for i, row in enumerate(seen)
            ]
            assert found[f"{way}_R@{k}"] == hits


def test_each_caption_asks_once_and_each_video_once() -> None:
    predictions = [{"t2v": 1, "v2t": 1}, {"t2v": 9, "v2t": 1}, {"t2v": 9, "v2t": 1}, {"t2v": 9, "v2t": 7}]
    found = retrieval(predictions, [("a", 0), ("a", 1), ("a", 2), ("b", 0)])
    assert found["t2v_R@1"] == [1, 0, 0, 0] and found["t2v_mean_rank"] == 7
    assert found["v2t_R@1"] == 50 and found["v2t_R@10"] == 100 and found["v2t_mean_rank"] == 4
    drawn_twice = retrieval(predictions[:3] * 2 + predictions[3:], [("a", 0), ("a", 1), ("a", 2)] * 2 + [("b", 0)])
    assert drawn_twice["v2t_R@1"] == pytest.approx(200 / 3), "a video that a resample draws twice counts twice"


def test_a_tie_for_the_first_place_is_no_hit_at_one() -> None:
    assert retrieval([{"t2v": 1.5, "v2t": 1}], [0])["t2v_R@1"] == [0.0]


def test_a_failed_query_ranks_last_in_the_median_and_the_mean() -> None:
    first, second, far = ({"t2v": rank, "v2t": rank} for rank in (1, 2, 90))
    assert retrieval([first, None, second, None], "abcd")["t2v_mean_rank"] == (1 + 4 + 2 + 4) / 4
    assert retrieval([first, None, far], "abc")["v2t_mean_rank"] == (1 + 90 + 90) / 3
    assert retrieval([None, None], "ab")["t2v_median_rank"] == 2
    found = retrieval([first, first, None, None, None], [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2)])
    assert found["t2v_mean_rank"] == (1 + 1 + 3 * 2) / 5, "the last of two videos"
    assert found["v2t_mean_rank"] == (1 + 5) / 2, "the last of five captions"


@pytest.mark.parametrize("prediction", [{"t2v": 0, "v2t": 1}, {"t2v": 1, "v2t": -3.0}, {"t2v": 1}, {"rank": 1}, 5])
def test_retrieval_refuses_what_has_no_rank_from_one(prediction: object) -> None:
    with pytest.raises(UserError, match="is not"):
        retrieval([prediction], [7])


THEIRS = {"R@1": "R1", "R@5": "R5", "R@10": "R10", "median_rank": "MedianR", "mean_rank": "MeanR"}


def agree(found: dict[str, Any], way: str, theirs: dict[str, float], metrics: Sequence[str] = tuple(THEIRS)) -> None:
    """To 1e-9 in points and ranks."""
    for metric in metrics:
        value = found[f"{way}_{metric}"]
        mine = percent(value) if isinstance(value, list) else value
        assert mine == pytest.approx(theirs.get(THEIRS[metric], theirs.get("MedR")), rel=0, abs=1e-9), (way, metric)


@pytest.mark.parametrize("code", ["clip4clip", "frozen"])
@pytest.mark.parametrize("way", ["t2v", "v2t"])
def test_retrieval_equals_clip4clip_and_frozen_in_time_where_nothing_ties(code: str, way: str) -> None:
    told = json.loads((EXPECTED / "expected.json").read_text())["square_1000"]
    with np.load(EXPECTED / "square_1000.npz") as arrays:
        found = retrieval(ranks_of(arrays["text"], arrays["video"]), [f"video{i}" for i in range(1000)])
    agree(found, way, told[f"{code}_{way}"])


@pytest.mark.parametrize("masked", [False, True])
def test_retrieval_with_several_captions_equals_clip4clip_and_frozen_in_time(masked: bool) -> None:
    told = json.loads((EXPECTED / "expected.json").read_text())["multi_200x20"]
    with np.load(EXPECTED / "multi_200x20.npz") as arrays:
        text, video, there = arrays["text"], arrays["video"], arrays["mask"].reshape(-1) > 0
    of = np.repeat(np.arange(200), 20)
    if masked:  # captions that are not there: videos have unequal numbers of them
        text, of = text[there], of[there]
    found = retrieval(ranks_of(text, video, of.tolist()), numbered(of.tolist()))
    suffix = "_masked" if masked else ""
    for way in ("t2v", "v2t"):
        agree(found, way, told[f"frozen_{way}{suffix}"])
    if not masked:
        # CLIP4Clip's rates of texts are float32.
        agree(found, "t2v", told["clip4clip_t2v_tensor"], ["median_rank", "mean_rank"])
        assert percent(found["t2v_R@1"]) == pytest.approx(told["clip4clip_t2v_tensor"]["R1"], abs=1e-5)
        agree(found, "v2t", told["clip4clip_v2t_tensor"])


def test_ties_are_averaged_as_in_frozen_in_times_v2t_and_nowhere_else() -> None:
    told = json.loads((EXPECTED / "expected.json").read_text())
    with np.load(EXPECTED / "ties_200.npz") as arrays:
        similarity = arrays["sims"]  # (texts, videos)
    found = retrieval(ranks_of(similarity, np.eye(200)), range(200))
    averaged = told["ties_200"]["frozen_v2t(averaging)"]
    agree(found, "v2t", averaged, ["R@1", "median_rank", "mean_rank"])
    # A rank from 0 below k is a hit there: 5.5 from 1 counts as one at 5, and here it does not.
    ranks = [one["v2t"] for one in ranks_of(similarity, np.eye(200))]
    for k in (5, 10):
        halves = sum(rank == k + 0.5 for rank in ranks)
        assert percent(found[f"v2t_R@{k}"]) == pytest.approx(averaged[f"R{k}"] - halves / 2, rel=0, abs=1e-9)
    # Frozen in Time's t2v takes the best place of what ties, CLIP4Clip has an entry for each that ties.
    optimistic, each = told["ties_200"]["frozen_t2v(optimistic)"], "clip4clip_t2v(len(ind) counts every tie)"
    own = similarity.diagonal()[:, None]
    assert percent((similarity > own).sum(1) < 1) == pytest.approx(optimistic["R1"], rel=0, abs=1e-9)
    places = [np.flatnonzero(np.sort(-row) == -row[i]) for i, row in enumerate(similarity)]
    assert percent(np.concatenate(places) < 1) == pytest.approx(told["ties_200"][each]["R1"], rel=0, abs=1e-9)
    assert percent(found["t2v_R@1"]) <= optimistic["R1"]


def test_a_constant_similarity_is_the_middle_as_in_clip4clip_and_frozen_in_times_v2t() -> None:
    told = json.loads((EXPECTED / "expected.json").read_text())["constant_50"]
    found = retrieval(ranks_of(np.ones((50, 1)), np.ones((50, 1))), range(50))
    for way in ("t2v", "v2t"):
        agree(found, way, told["frozen_v2t"])
    agree(found, "t2v", told["clip4clip_t2v"], ["median_rank", "mean_rank"])
    assert told["frozen_t2v"]["R1"] == 100, "which a collapsed encoder would get there"
