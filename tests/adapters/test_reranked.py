"""Re-ranking: where each query's target lands, by an encoder whose logits are a table."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, Example, Task
from evalkit.datasets.captions import CaptionedVideo, CaptionSplits, retrieval_task
from evalkit.errors import UserError
from tests.given import make_adapter

WIDTH = 6


class Table(nn.Module):
    """Texts are numbers, which have vectors; a video's sequence is its number, twice, and its vector.

    Args:
        texts: (n, WIDTH) vectors of the texts.
        logits: (n, m) by text and video.
    """

    clip, dim = Clip(frames=1, size=8), WIDTH

    def __init__(self, texts: Tensor, logits: Tensor) -> None:
        super().__init__()
        self.texts, self.logits = texts, logits
        self.read: list[str] = []
        self.matched: list[int] = []

    def forward(self, video: Tensor) -> EncoderOutput:
        raise AssertionError

    def encode_text(self, texts: list[str]) -> Tensor:
        return self.texts[[int(text) for text in texts]]

    def text_states(self, texts: list[str]) -> list[Tensor]:
        self.read += texts
        return [torch.full((2, 3), float(text)) for text in texts]

    def match(self, sequence: Tensor, states: Sequence[Tensor]) -> Tensor:
        assert sequence.dtype == torch.float32
        number, offset = int(sequence[0, 0, 0]), sequence[0, 1, 0]
        self.matched.append(len(states))
        return torch.stack([self.logits[int(each[0, 0]), number] for each in states]) + offset

    def pool(self, sequence: Tensor) -> Tensor:
        return sequence[:, 0, 2]


def features(videos: Tensor, offsets: Sequence[float] = (0.0,)) -> Tensor:
    """(m, V, 1, 3, WIDTH) of video vectors (m, WIDTH): number, what a view adds to the logits, and vector."""
    rows = torch.zeros(len(videos), len(offsets), 1, 3, WIDTH)
    rows[:, :, 0, 0] = torch.arange(len(videos))[:, None, None].float()
    rows[:, :, 0, 1] = torch.tensor(offsets)[:, None]
    rows[:, :, 0, 2] = videos[:, None]
    return rows.half()


def captioned(videos: int, captions: int = 1, texts: Sequence[str] = ()) -> Task:
    """A task whose captions are the numbers of the table's texts."""
    named = list(texts) or [str(number) for number in range(videos * captions)]
    rows = [CaptionedVideo(f"v{i}", Path(f"{i}.mp4"), named[i * captions : (i + 1) * captions]) for i in range(videos)]
    return retrieval_task(CaptionSplits(rows, rows))


def ranks(encoder: Table, task: Task, given: Tensor, **settings: Any) -> list[dict[str, float]]:
    adapter = make_adapter("retrieval", encoder, task, **settings).eval()
    captions = len(task.test) // len(given)
    with torch.inference_mode():
        half = [  # in two batches, as a run predicts
            prediction
            for start in (0, captions)
            for prediction in adapter.predict(
                task.test[start : None if start else captions],
                given.repeat_interleave(captions, 0)[start : None if start else captions],
            )
        ]
        encoder.read, encoder.matched = [], []  # without those of the check that it matches at all
        return [prediction.value for prediction in adapter.finalize(task.test, half)]


def by_sorting(similarity: Tensor, logits: Tensor, of: Sequence[int], count: int) -> list[dict[str, float]]:
    """Ranks (without ties) by putting all candidates of each query in order."""

    def order(near: Tensor, matched: Tensor) -> list[int]:
        by_cosine = near.argsort(descending=True).tolist()
        return sorted(by_cosine[:count], key=lambda k: -matched[k]) + by_cosine[count:]

    placed = []
    for i, target in enumerate(of):
        t2v = 1.0 + order(similarity[i], logits[i]).index(target)
        texts = order(similarity[:, target], logits[:, target])
        best = next(place for place, text in enumerate(texts) if of[text] == target)
        placed.append({"t2v": t2v, "v2t": 1.0 + best})
    return placed


@pytest.mark.parametrize("captions", [1, 3])
@pytest.mark.parametrize("count", [1, 4, 11, 500])
def test_the_first_are_put_in_order_and_the_others_follow(captions: int, count: int) -> None:
    drawn = torch.Generator().manual_seed(captions * count)
    videos = F.normalize(torch.randn(12, WIDTH, generator=drawn), dim=1).half().float()
    texts = torch.randn(12 * captions, WIDTH, generator=drawn)
    logits = torch.randn(len(texts), 12, generator=drawn) * 3
    encoder, task = Table(texts, logits), captioned(12, captions)
    similarity = F.normalize(texts, dim=1) @ F.normalize(videos, dim=1).T
    of = [i // captions for i in range(len(texts))]
    placed = ranks(encoder, task, features(videos), rerank=count)
    assert placed == by_sorting(similarity, logits, of, count)
    first = ranks(Table(texts, logits), task, features(videos), rerank=1)
    plain = make_adapter("retrieval", Table(texts, logits), task)
    with torch.inference_mode():
        predicted = plain.predict(task.test, videos[:, None].repeat_interleave(captions, 0))
    assert first == [prediction.value for prediction in plain.finalize(task.test, predicted)]
    assert sorted(encoder.read) == sorted(example.text for example in task.test), "each text is read once"
    assert max(encoder.matched) <= 64
    # What a plan is made of: every pair that one of the searches wants, once, of which both may want some.
    most = make_adapter("retrieval", encoder, task, rerank=count).finalize_steps(task.test)
    assert most / 2 <= sum(encoder.matched) <= most <= len(texts) * 12
    assert count < 500 or sum(encoder.matched) == most


def test_a_head_that_turns_every_order_round_turns_the_first_round() -> None:
    drawn = torch.Generator().manual_seed(0)
    videos = torch.randn(9, WIDTH, generator=drawn).half().float()
    texts, logits = torch.randn(9, WIDTH, generator=drawn), torch.randn(9, 9, generator=drawn)
    forward, back = (ranks(Table(texts, sign * logits), captioned(9), features(videos), rerank=9) for sign in (1, -1))
    for ahead, behind in zip(forward, back, strict=True):
        assert ahead["t2v"] + behind["t2v"] == ahead["v2t"] + behind["v2t"] == 10
    some, turned = (ranks(Table(texts, sign * logits), captioned(9), features(videos), rerank=4) for sign in (1, -1))
    for ahead, behind in zip(some, turned, strict=True):
        for way in ("t2v", "v2t"):
            assert ahead[way] == behind[way] > 4 or ahead[way] + behind[way] == 5


def test_the_views_of_a_video_are_averaged() -> None:
    drawn = torch.Generator().manual_seed(1)
    videos, texts = torch.randn(5, WIDTH, generator=drawn).half().float(), torch.randn(5, WIDTH, generator=drawn)
    logits = torch.randn(5, 5, generator=drawn)
    one = ranks(Table(texts, logits), captioned(5), features(videos, (0.5,)), rerank=5)
    two = ranks(Table(texts, logits), captioned(5), features(videos, (-3.0, 4.0)), rerank=5)
    assert one == two == by_sorting(F.normalize(texts, dim=1) @ videos.T, logits, range(5), 5)
    uneven = features(videos, (0.0, 0.0))
    uneven[2, 1, 0, 1] = 100.0  # of one view of one video, which then is the first for all texts
    assert all(
        row["t2v"] > 1 for i, row in enumerate(ranks(Table(texts, logits), captioned(5), uneven, rerank=5)) if i != 2
    )


def test_ties_count_half_and_the_same_words_are_matched_once() -> None:
    videos = torch.eye(WIDTH)[:4]
    encoder = Table(torch.eye(WIDTH), torch.zeros(4, 4))
    placed = ranks(encoder, captioned(4), features(videos), rerank=4)
    assert placed == [{"t2v": 2.5, "v2t": 2.5}] * 4
    # Two captions are the same words: each is a rival of the other, and as good.
    encoder = Table(torch.eye(WIDTH), torch.eye(4) * 5)
    placed = ranks(encoder, captioned(4, texts=["0", "1", "1", "3"]), features(videos), rerank=4)
    assert encoder.read == ["0", "1", "3"]
    assert [row["v2t"] for row in placed] == [1.0, 1.5, 2.5, 1.0]
    # All equal by the cosine: all that are as near as the first are matched, whatever their number.
    encoder = Table(torch.ones(4, WIDTH), torch.eye(4))
    assert ranks(encoder, captioned(4), features(torch.ones(4, WIDTH)), rerank=1) == [{"t2v": 1.0, "v2t": 1.0}] * 4


def test_what_is_not_finite_is_a_miss_and_no_rival(capsys: pytest.CaptureFixture[str]) -> None:
    logits = torch.eye(4) * 5
    logits[2, 2] = math.nan
    logits[0, 1] = math.nan  # of a rival
    texts = torch.eye(WIDTH)[:4].clone()
    texts[3] = math.nan
    placed = ranks(Table(texts, logits), captioned(4), features(torch.eye(WIDTH)[:4]), rerank=4)
    told = "because their vector, or the logit of their match, is nan or infinite: 2 of 4 texts and 2 of 4 videos"
    assert told in capsys.readouterr().err
    assert placed[0] == placed[1] == {"t2v": 1.0, "v2t": 1.0}
    assert all(math.isnan(placed[row][way]) for row in (2, 3) for way in ("t2v", "v2t"))


def test_the_nearest_videos_are_those_of_the_new_order() -> None:
    drawn = torch.Generator().manual_seed(2)
    videos, texts = torch.randn(14, WIDTH, generator=drawn).half().float(), torch.randn(14, WIDTH, generator=drawn)
    logits, task = torch.randn(14, 14, generator=drawn), captioned(14)
    adapter = make_adapter("retrieval", Table(texts, logits), task, rerank=3)
    with torch.inference_mode():
        placed = adapter.finalize(task.test, adapter.predict(task.test, features(videos)))
    similarity = F.normalize(texts, dim=1) @ F.normalize(videos, dim=1).T
    for i, prediction in enumerate(placed):
        order = similarity[i].argsort(descending=True).tolist()
        wanted = sorted(order[:3], key=lambda k: -logits[i, k]) + order[3:10]
        assert prediction.detail["nearest"] == [f"v{k}" for k in wanted]
        assert prediction.detail["similarity"] == pytest.approx(float(similarity[i, i]), abs=2e-6)


def test_each_data_set_of_a_mixture_is_searched_by_itself() -> None:
    drawn = torch.Generator().manual_seed(3)
    videos, texts = torch.randn(6, WIDTH, generator=drawn).half().float(), torch.randn(6, WIDTH, generator=drawn)
    logits, task = torch.randn(6, 6, generator=drawn), captioned(6)
    halves: list[Example] = [replace(e, kind="ab"[i > 2]) for i, e in enumerate(task.test)]
    apart = replace(task, test=halves, mixture={"a": 1.0, "b": 1.0})
    placed = ranks(Table(texts, logits), apart, features(videos), rerank=2)
    similarity = F.normalize(texts, dim=1) @ F.normalize(videos, dim=1).T
    wanted = [by_sorting(similarity[s, s], logits[s, s], range(3), 2) for s in (slice(0, 3), slice(3, 6))]
    assert placed == wanted[0] + wanted[1]
    assert make_adapter("retrieval", Table(texts, logits), apart, rerank=9).finalize_steps(halves) == 3 * 3 + 3 * 3


def test_a_videos_sequence_is_held_once() -> None:
    task = captioned(3, 4)
    adapter = make_adapter("retrieval", Table(torch.eye(12, WIDTH), torch.zeros(12, 3)), task, rerank=2)
    given = features(torch.eye(WIDTH)[:3]).repeat_interleave(4, 0)
    held = [prediction.value[2] for prediction in adapter.predict(task.test, given)]
    assert [each is not None for each in held] == [True, False, False, False] * 3
    assert held[0].dtype == torch.float16 and held[0].untyped_storage().nbytes() == held[0].nbytes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": True}, "adapter.rerank=4 is zero-shot alone: leave it out, or adapter.train, adapter.text and"),
        ({"tune_text": True}, "adapter.rerank=4 is zero-shot alone"),
        ({"dual_softmax": 0.1}, "adapter.rerank=4 and adapter.dual_softmax=0.1 each order the candidates: leave one"),
        ({"pool": "mean"}, "adapter.pool and adapter.dim have no effect zero-shot"),
    ],
)
def test_what_cannot_be_meant_beside_it_is_refused(settings: dict[str, Any], message: str) -> None:
    encoder = Table(torch.eye(4, WIDTH), torch.zeros(4, 4))
    with pytest.raises(UserError) as refusal:
        make_adapter("retrieval", encoder, captioned(4), rerank=4, **settings)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_an_encoder_without_such_layers_is_told() -> None:
    class Plain(Table):
        match = None  # type: ignore[assignment]

    with pytest.raises(UserError, match="adapter.rerank=4: this encoder has no layers that see a video and a text"):
        make_adapter("retrieval", Plain(torch.eye(4, WIDTH), torch.zeros(4, 4)), captioned(4), rerank=4)


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("match", lambda sequence, states: torch.zeros(len(states), 1), "match gives (2, 1) for 2 texts; wanted (2,)"),
        (
            "match",
            lambda sequence, states: torch.zeros(()),
            "match gives () for 2 texts; wanted (2,), a logit for each",
        ),
        ("match", lambda sequence: sequence, "fails to match a text with a video: TypeError: "),
        ("text_states", lambda texts: 1 / 0, "fails to match a text with a video: ZeroDivisionError: division by zero"),
        ("text_states", None, "fails to match a text with a video: TypeError: 'NoneType' object is not callable"),
    ],
)
def test_an_encoder_that_matches_otherwise_is_told_at_the_first_video(name: str, function: Any, message: str) -> None:
    encoder, task = Table(torch.eye(4, WIDTH), torch.zeros(4, 4)), captioned(4)
    adapter = make_adapter("retrieval", encoder, task, rerank=4)
    setattr(encoder, name, function)
    with pytest.raises(UserError) as refusal:
        adapter.predict(task.test[:1], features(torch.eye(WIDTH)[:1]))
    assert str(refusal.value).startswith("adapter.rerank=4: the encoder") and message in str(refusal.value)
