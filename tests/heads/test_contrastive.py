"""The contrastive loss of a batch that several processes share."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evalkit.heads.contrastive import contrastive_loss
from evalkit.pipeline.training.divided import part
from evalkit.runtime.ranks import Ranks
from tests.forked import ranks

SCRIPT = '''
"""One process's part of the loss and its gradients, summed as `DividedSteps` sums them."""

import sys

import torch

from evalkit.runtime.ranks import here
from tests.heads.test_contrastive import loss_of

sums = []
for size in (5, 1):
    loss, gradients, share = loss_of(size, here())
    sums.append([here().sum(value * share) for value in (loss, *gradients)])
if here().first:
    torch.save(sums, sys.argv[0] + ".pt")
'''


def loss_of(size: int, place: Ranks, options: bool = True) -> tuple[Tensor, list[Tensor], float]:
    """The loss of a batch of videos of this size and its gradients, as one process of several finds them."""
    torch.manual_seed(0)
    video, text = nn.Linear(6, 4), nn.Linear(3, 4)
    scale = nn.Parameter(torch.tensor(0.7))
    clips, captions = torch.randn(5, 6), torch.randn(9, 3)
    words = ["a", "b", "a", "c", "d"]
    wrong = [["e", "b"], [], ["f"], ["g"], []] if options else [[]] * 5  # one is another video's own
    rows = {word: k for k, word in enumerate("abcdefg")}
    places, share = part(range(size), place)
    said = [words[i] for i in places] + [word for i in places for word in wrong[i]]
    videos = [("v", i // 2) for i in places]
    texts = text(captions[[rows[word] for word in said]])
    loss = contrastive_loss(video(clips[places]), texts, scale, videos, said, place, share)
    gradients = torch.autograd.grad(loss, [*video.parameters(), *text.parameters(), scale])
    return loss.detach(), [*gradients], share


@pytest.mark.parametrize("count", [2, 3])
def test_the_loss_and_the_gradients_of_a_batch_that_processes_share_are_those_of_the_whole(
    tmp_path: Path, count: int
) -> None:
    """Of five videos with unlike numbers of wrong options, and of one, of which all but one process have none."""
    (tmp_path / "share.py").write_text(SCRIPT)
    with ranks(count, tmp_path / "share.py", cwd=Path.cwd()) as processes:
        told = [process.communicate()[1] for process in processes]
        assert [process.returncode for process in processes] == [0] * count, told
    for size, values in zip((5, 1), torch.load(tmp_path / "share.py.pt"), strict=True):
        loss, gradients, _ = loss_of(size, Ranks())
        for value, whole in zip(values, (loss, *gradients), strict=True):
            assert torch.allclose(value, whole, atol=1e-6)
    assert max(gradient.abs().max() for gradient in loss_of(5, Ranks())[1]) > 0.1


def test_another_text_of_the_same_video_is_no_negative_where_there_are_no_options() -> None:
    torch.manual_seed(0)
    video, text, scale = torch.randn(2, 4), torch.randn(2, 4), torch.tensor(0.0)
    assert contrastive_loss(video, text, scale, ["v", "v"], ["a", "b"]) == 0
    assert contrastive_loss(video, text, scale, ["v", "w"], ["a", "b"]) > 0
