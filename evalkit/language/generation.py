"""Greedy generation without a cache, and which rows of a generation had logits that are no numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def generate_greedily(
    read: Callable[[Tensor, Tensor], Tensor],
    words: nn.Module,
    embedded: Tensor,
    mask: Tensor,
    *,
    max_new_tokens: int,
    eos_token_id: Sequence[int],
    logits_processor: Sequence[Callable[[Tensor, Tensor], Tensor]] = (),
    **_: Any,
) -> Tensor:
    """New tokens (N, at most max_new_tokens), all of the text read again for each, as transformers' `generate` does.

    Args:
        read: the next token's logits (N, vocabulary) after embeddings (N, L, W) with their mask.
        words: the embedding of tokens.
        embedded: what has been read.
        mask: of it, ones.
        max_new_tokens: at most.
        eos_token_id: tokens that end a text.
        logits_processor: called with the tokens and logits of each step.
    """
    ids: list[Tensor] = []
    ends = torch.tensor(list(eos_token_id), device=embedded.device)
    ended = torch.zeros(len(embedded), dtype=torch.bool, device=embedded.device)
    while len(ids) < max_new_tokens and not bool(ended.all()):
        logits = read(embedded, mask)
        for process in logits_processor:
            logits = process(torch.stack(ids, 1) if ids else mask[:, :0], logits)
        ids.append(logits.argmax(-1))
        ended |= torch.isin(ids[-1], ends)
        embedded = torch.cat([embedded, words(ids[-1])[:, None]], 1)
        mask = F.pad(mask, (0, 1), value=1)
    return torch.stack(ids, 1)


class BrokenRows:
    """Of a generation of rows, each with as many beams, those whose logits held NaN or infinity at any step."""

    def __init__(self, rows: int) -> None:
        self.rows = [False] * rows

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        bad = (scores.isnan() | (scores == torch.inf)).view(len(self.rows), -1).any(1).tolist()
        self.rows = [before or now for before, now in zip(self.rows, bad, strict=True)]
        return scores
