import importlib
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from evalkit.metrics import ranks as module
from evalkit.metrics.ranks import Ranks, _Side, nearest, ranks

scipy: Any = importlib.import_module("scipy.stats")  # comes with scikit-learn, without types


def reference(text: Tensor, video: Tensor, of: Tensor) -> Ranks:
    """From the whole matrix in float64, by scipy's average ranks; small integers in it make the products exact."""
    similarity = (text.double() @ video.double().T).numpy()
    t2v, v2t = [], []
    for i, row in enumerate(similarity):
        t2v.append(scipy.rankdata(-row, "average")[of[i]])
    for j, column in enumerate(similarity.T):
        own = of.numpy() == j
        if not own.any():
            v2t.append(math.nan)
            continue
        rivals = np.append(column[~own], column[own].max())
        v2t.append(scipy.rankdata(-rivals, "average")[-1])
    return Ranks(torch.tensor(t2v, dtype=torch.float64), torch.tensor(v2t, dtype=torch.float64))


def made(n: int, m: int, d: int = 24, kind: str = "close", seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Texts, videos, and which video each text is of."""
    generator = torch.Generator().manual_seed(seed)
    of = torch.arange(m).repeat(-(-n // m))[:n][torch.randperm(n, generator=generator)]
    video = torch.randn(m, d, generator=generator)
    text = video[of] + torch.randn(n, d, generator=generator)
    if kind == "ties":  # every product is a small whole number
        video, text = video.sign(), text.sign()
    if kind == "copies":
        video[1::2] = video[::2][: len(video[1::2])]
    if kind == "one":
        video[:], text[:] = video[0], text[0]
    return (
        F.normalize(text, dim=1) if kind != "ties" else text,
        F.normalize(video, dim=1) if kind != "ties" else video,
        of,
    )


def same(found: Ranks, wanted: Ranks) -> None:
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", ["close", "ties"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (60, 60), (200, 50), (97, 31)])
def test_ranks_are_the_average_ranks_of_the_whole_matrix(n: int, m: int, kind: str) -> None:
    given = made(n, m, kind=kind)
    same(ranks(*given), reference(*given))


@pytest.mark.parametrize("kind", ["close", "ties", "copies", "one"])
@pytest.mark.parametrize("block", [(1, 1), (7, 5), (16, 64), (512, 2048)])
def test_ranks_do_not_depend_on_the_blocks(kind: str, block: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    given = made(90, 30, kind=kind)
    wanted = ranks(*given)
    monkeypatch.setattr(module, "BLOCK_ROWS", block[0])
    monkeypatch.setattr(module, "BLOCK_COLUMNS", block[1])
    same(ranks(*given), wanted)


def test_ranks_are_the_same_in_inference_mode_and_of_what_has_a_gradient() -> None:
    text, video, of = made(60, 20)
    wanted = ranks(text, video, of)
    with torch.inference_mode():
        same(ranks(text.clone(), video.clone(), of), wanted)
    same(ranks(text.requires_grad_(), video, of), wanted)


def test_threads_count_as_one_does_and_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", 16)
    given, before = made(300, 80, kind="ties"), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(ranks(*given))
            assert torch.get_num_threads() == threads
        monkeypatch.setattr(_Side, "count_exactly", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ranks(*given)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    same(*found)


@pytest.mark.parametrize("dense", [1.0, 0.0])
def test_it_does_not_matter_whether_close_ones_are_multiplied_one_by_one_or_as_a_block(
    dense: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = made(300, 80, kind="copies")
    wanted = ranks(*given)
    monkeypatch.setattr(module, "DENSE_SHARE", dense)
    monkeypatch.setattr(module, "PAIRS_PER_CHUNK", 7)
    same(ranks(*given), wanted)


def test_equal_videos_tie_exactly_and_a_collapsed_encoder_ranks_everything_in_the_middle() -> None:
    found = ranks(*made(101, 101, d=513, kind="one"))
    assert set(found.t2v.tolist()) == set(found.v2t.tolist()) == {51.0}
    found = ranks(*made(40, 40, d=513, kind="copies"))
    assert (found.t2v % 1 == 0.5).all(), "a video and its copy share two places"


def test_what_float32_cannot_tell_apart_is_decided_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(64, 256, generator=generator, dtype=torch.float64), dim=1)
    video = text[:1] + 1e-9 * torch.randn(64, 256, generator=generator, dtype=torch.float64)
    of = torch.arange(64)
    in_float32 = text.float() @ video.float().T
    assert (in_float32 == in_float32[:, :1]).float().mean() > 0.2, "float32 sees ties that are none"
    same(ranks(text, video, of), reference(text, video, of))


def test_a_videos_own_texts_are_no_rivals_of_its_best_one() -> None:
    video = torch.eye(2)
    text = torch.tensor([[3.0, 0.0], [3.0, 0.0], [1.0, 0.0], [2.0, 5.0]])  # the first two are the same caption twice
    found = ranks(text, video, torch.tensor([0, 0, 0, 1]))
    assert found.v2t.tolist() == [1.0, 1.0] and found.t2v.tolist() == [1.0, 1.0, 1.0, 1.0]


def test_a_rival_that_ties_counts_half_in_both_directions() -> None:
    video = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = ranks(video.clone(), video, torch.arange(3))
    assert found.t2v.tolist() == found.v2t.tolist() == [1.5, 1.5, 1.0]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_vector_that_is_not_finite_has_no_rank_and_is_no_rival(broken: float) -> None:
    text, video, of = made(40, 20)
    text[3, 2], video[5, 0] = broken, broken
    found = ranks(text, video, of)
    lost = {3, *(of == 5).nonzero().flatten().tolist()}
    assert set(found.t2v.isnan().nonzero().flatten().tolist()) == lost
    assert found.v2t.isnan().nonzero().flatten().tolist() == [5]
    left = [i for i in range(40) if i not in lost]
    others = [j for j in range(20) if j != 5]
    renumbered = torch.tensor([others.index(int(of[i])) for i in left])
    wanted = ranks(text[left], video[others], renumbered)
    torch.testing.assert_close(found.t2v[left], wanted.t2v, rtol=0, atol=0)
    # The texts of the broken video are still there to be found.
    assert (found.v2t[others] >= wanted.v2t).all()


def test_a_video_without_a_text_is_searched_and_has_no_rank() -> None:
    text, video, of = made(30, 10)
    found = ranks(text, torch.cat([video, text[:1]]), of)
    assert found.t2v[0] == ranks(text, video, of).t2v[0] + 1 and math.isnan(found.v2t[10])


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees everything that torch makes."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(one.numel() for one in tree_leaves(made) if isinstance(one, Tensor))])
        return made


@pytest.mark.parametrize("kind", ["close", "one"])
def test_a_large_search_never_holds_all_similarities(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", 128)
    monkeypatch.setattr(module, "BLOCK_COLUMNS", 1024)
    given = made(1500, 1400, d=8, kind=kind)
    with Largest() as largest:  # type: ignore[no-untyped-call]
        ranks(*given)
        nearest(*given[:2], 10)
    assert largest.numbers <= 2 * 128 * 1024, "at most the places of all of a block, (p, 2)"


@pytest.mark.parametrize("count", [1, 5, 50])
def test_the_nearest_are_the_best_of_the_whole_matrix(count: int) -> None:
    text, video, _ = made(60, 20)
    wanted = (text @ video.T).argsort(dim=1, descending=True)[:, :count]
    assert torch.equal(nearest(text, video, count), wanted)
