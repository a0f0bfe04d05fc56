"""The contrastive loss of a batch of videos and texts, of which several processes may each have a part."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.errors import UserError
from evalkit.heads.losses import clip_loss
from evalkit.runtime.ranks import ALONE, Ranks


def check_negatives(examples: int, batch_size: int) -> None:
    """Check that a video is told apart from others: alone in its batch it has no negative, and its loss is 0.

    Args:
        examples: that there are to train on.
        batch_size: of them in a training step.

    Raises:
        UserError: each is alone.
    """
    if batch_size == 1:
        raise UserError(
            "adapter.batch_size=1: a contrastive loss compares the videos of a batch, so that nothing would be "
            "learned; give 2 or more"
        )
    if examples == 1:
        raise UserError(
            "there is 1 training example: a contrastive loss compares the videos of a batch, so that nothing would be "
            "learned; add examples, or increase trainer.share"
        )


def contrastive_loss(
    video: Tensor,
    text: Tensor,
    log_scale: Tensor,
    videos: Sequence[Hashable],
    words: Sequence[str],
    ranks: Ranks = ALONE,
    share: float = 1.0,
) -> Tensor:
    """The symmetric loss of all texts of a batch against all its videos, a scalar.

    Of several processes, each gives its part, and all get the loss of the whole. Where their gradients are summed, each
    weighted by its share (`DividedSteps`), that is the gradient of one process which has the whole batch, but for the
    order in which numbers are added.

    Args:
        video: (B, D), of any length.
        text: (N, D), of any length; the first B are the videos' own, the others further negatives of all videos.
        log_scale: scalar, log of the inverse temperature.
        videos: which video each of the B is: what else is said of the same one is no negative, unless there are others.
        words: the N texts: what says the same as a video's own is no negative.
        ranks: this process's place among those that have a part of the batch.
        share: of the batch that this part is; 0 for rows of a process that has no part, which do not count.
    """
    count, others = len(video), text[len(video) :]
    parts = ranks.gather_all((list(videos), list(words[:count]), list(words[count:])) if share else ([], [], []))
    keys, right, wrong = ([item for part in parts for item in part[k]] for k in range(3))
    sizes = [len(part[0]) for part in parts]
    whole_video = ranks.rows(F.normalize(video, dim=-1), sizes, share)
    whole_text = ranks.rows(F.normalize(text[:count], dim=-1), sizes, share)
    if wrong:
        of_others = ranks.rows(F.normalize(others, dim=-1), [len(part[2]) for part in parts], share)
        whole_text = torch.cat([whole_text, of_others])
    same = torch.tensor([[caption == other for other in right + wrong] for caption in right], device=video.device)
    if not wrong:
        same |= torch.tensor([[key == other for other in keys] for key in keys], device=video.device)
    return clip_loss(whole_video, whole_text, log_scale, same)
