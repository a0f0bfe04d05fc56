"""Re-ranking: the first candidates of every search in the order of layers that see a video and a text together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evalkit.errors import UserError, one_line
from evalkit.metrics.ranks import Ranks
from evalkit.runtime.progress import track

from ._ranked import numbered

TEXTS = 64  # read at a time, and matched with a video at a time
ENTRIES = 1 << 22  # similarities in float64 at a time
SAME_SIMILARITY = 1e-12  # of vectors of length 1, whose float64 products err by less
SAME_LOGIT = 1e-5  # what float32 errs by in a few layers, so that the same video twice is a tie


class SequencePool(nn.Module):
    """Sequences (B, T', L, W) -> the vectors (B, E) that the encoder itself pools them to."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, sequences: Tensor) -> Tensor:
        return self.encoder.pool(sequences.float())  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Reranker:
    """Puts the first `count` candidates of each query in the order of the encoder's `match`, before all others.

    As in the code of UMT and InternVideo2 (https://github.com/OpenGVLab), a query matches its nearest candidates by
    the cosine, each text with videos and each video with texts. There all other candidates share the last place; here
    they stay in the order of the cosine, which changes no R@n up to n = `count`.

    Attributes:
        encoder: with `text_states` and `match`.
        count: of candidates; those that are as near as the last of them are matched, too.
    """

    encoder: Any
    count: int

    def pairs(self, texts: int, videos: int) -> int:
        """The most pairs that are matched if no two candidates are equally near; fewer where both searches have one."""
        return min(texts * videos, texts * min(self.count, videos) + videos * min(self.count, texts))

    def check(self, sequence: Tensor, text: str) -> None:
        """Matches a video with a text, given twice, so that an encoder that cannot is known before all are encoded.

        Args:
            sequence: (T', L, W) of the video.
            text: any.

        Raises:
            UserError: the encoder's `text_states` or `match` fails, or gives something else than a logit for each text.
        """
        wrong = f"adapter.rerank={self.count}: "
        try:
            states = self.encoder.text_states([text, text])
            shape = tuple(self.encoder.match(sequence.to(states[0].device).float(), states).shape)
        except UserError:
            raise
        except Exception as error:  # whatever the encoder's own code raises
            raise UserError(f"{wrong}the encoder fails to match a text with a video: {one_line(error)}") from error
        if shape != (2,):
            raise UserError(f"{wrong}the encoder's match gives {shape} for 2 texts; wanted (2,), a logit for each")

    def rerank(
        self,
        first: Ranks,
        text: Tensor,
        video: Tensor,
        of: Tensor,
        texts: Sequence[str],
        sequences: Sequence[Tensor],
    ) -> tuple[Ranks, list[list[int]]]:
        """The new ranks, and the rows of each text's first videos, best first.

        Ties count half, and a video's rank is that of its best text, as in `evalkit.metrics.ranks.ranks`. A query whose
        target is matched with a logit that is NaN has no rank.

        Args:
            first: the ranks by the cosine.
            text: (n, d) vectors of length 1.
            video: (m, d) vectors of length 1.
            of: (n,) the row of each text's video.
            texts: the n texts.
            sequences: (V, T', L, W) of the V views of each of the m videos.
        """
        to_video, to_text = shortlist(text, video, self.count), shortlist(video, text, self.count).flip(1)
        pairs = torch.cat([to_video, to_text])  # (text, video)
        unique, rows = numbered(texts)
        each = pairs[:, 1] * len(rows) + torch.tensor(unique)[pairs[:, 0]]
        keys, place = torch.unique(each, return_inverse=True)
        matched = self._matched([texts[row] for row in rows], sequences, keys)
        t2v, v2t = torch.split(matched[place], [len(to_video), len(to_text)])
        ranks = Ranks(
            _placed(first.t2v, to_video[:, 0], t2v, of[to_video[:, 0]] == to_video[:, 1]),
            _placed(first.v2t, to_text[:, 1], v2t, of[to_text[:, 0]] == to_text[:, 1]),
        )
        order = t2v.nan_to_num(nan=-math.inf).argsort(descending=True, stable=True)
        order = order[to_video[order, 0].argsort(stable=True)]
        lengths = to_video[:, 0].bincount(minlength=len(text)).tolist()
        return ranks, [videos.tolist() for videos in torch.split(to_video[order, 1], lengths)]

    def _matched(self, texts: Sequence[str], sequences: Sequence[Tensor], keys: Tensor) -> Tensor:
        """Logits (p,) of pairs given by sorted keys, video x number of texts + text; one video after another."""
        states: list[Tensor] = []
        for start in range(0, len(texts), TEXTS):
            states += [each.clone() for each in self.encoder.text_states(list(texts[start : start + TEXTS]))]
        videos, counts = torch.unique_consecutive(keys // len(texts), return_counts=True)
        candidates = torch.split(keys % len(texts), counts.tolist())
        logits = (
            self._of_video(sequences[row], [states[i] for i in some.tolist()])
            for row, some in zip(videos.tolist(), candidates, strict=True)
        )
        return torch.cat([*track(logits, "re-rank videos", len(videos)), torch.empty(0)])

    def _of_video(self, views: Tensor, states: Sequence[Tensor]) -> Tensor:
        """Logits (B,) of texts for one video: the mean over its views."""
        views = views.to(states[0].device).float()
        parts = [states[start : start + TEXTS] for start in range(0, len(states), TEXTS)]
        of_views = [torch.cat([self.encoder.match(view, part) for part in parts]) for view in views]
        return torch.stack(of_views).mean(0).float().cpu()


def shortlist(queries: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Pairs (p, 2) of each query's row, in order, and the rows of its `count` nearest candidates by the dot product.

    Candidates that are as near as the last of them are among them; vectors that are not finite are in no pair.

    Args:
        queries: (q, d) float.
        candidates: (c, d) float.
        count: of candidates.
    """
    columns, k = candidates.double().T, min(count, len(candidates))

    def pairs() -> Iterator[Tensor]:
        for rows in torch.split(torch.arange(len(queries)), max(1, ENTRIES // max(1, len(candidates)))):
            similarity = (queries[rows].double() @ columns).nan_to_num(nan=-math.inf, posinf=-math.inf)
            last = similarity.topk(k).values[:, -1:]
            i, j = ((similarity >= last - SAME_SIMILARITY) & similarity.isfinite()).nonzero().unbind(1)
            yield torch.stack([rows[i], j], 1)

    return torch.cat([*pairs(), torch.empty(0, 2, dtype=torch.int64)])


def _placed(first: Tensor, query: Tensor, logits: Tensor, is_target: Tensor) -> Tensor:
    """Ranks of queries after their shortlists are put in order; outside of them, the first rank stays.

    Args:
        first: (q,) ranks.
        query: (p,) row of each pair's query.
        logits: (p,) of the pairs.
        is_target: (p,) whether the pair's candidate is what the query should find.
    """
    best = torch.full_like(first, -math.inf)
    logits = logits.to(first)
    best.scatter_reduce_(0, query[is_target], logits[is_target].nan_to_num(nan=-math.inf), "amax")
    beyond = (logits - best[query])[~is_target]
    slack = SAME_LOGIT * (1 + best.abs())[query][~is_target]
    rank, rivals = torch.ones_like(first), query[~is_target]
    rank.index_add_(0, rivals, (beyond > slack).to(first))
    rank.index_add_(0, rivals, (beyond.abs() <= slack).to(first) / 2)
    listed = torch.zeros(len(first), dtype=torch.bool).index_fill_(0, query[is_target], True)
    return torch.where(listed, rank.where(best.isfinite(), math.nan), first)
