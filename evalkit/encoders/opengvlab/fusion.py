"""BERT's last layers, which look at a video, and the head that says whether a text describes it.

UMT and the second stage of InternVideo2 rank the nearest candidates of a search again by them. Modules are named as in
the authors' files; transformers' BERT looks at states of its own width alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

HEAD = 64  # width of a head of BERT
EPSILON = 1e-12


class Attention(nn.Module):
    """Attention of states (B, N, width) to others (B, M, other width), added to them, with a norm after the sum."""

    def __init__(self, width: int, other_width: int) -> None:
        super().__init__()
        maps = {"query": nn.Linear(width, width), "key": nn.Linear(other_width, width)}
        maps["value"] = nn.Linear(other_width, width)
        self.self = nn.ModuleDict(maps)
        self.output = _output(width, width)
        self.heads = max(1, width // HEAD)

    def forward(self, x: Tensor, others: Tensor, mask: Tensor | None = None) -> Tensor:
        """Which of the others count is said by `mask`, bool (B, 1, 1, M)."""
        query, key, value = (
            self.self[name](states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for name, states in (("query", x), ("key", others), ("value", others))
        )
        seen = F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2)
        return _added(self.output, seen, x)


class Layer(nn.Module):
    """Attention of each text to itself, of all texts to one video, and an MLP."""

    def __init__(self, width: int, hidden: int, video_width: int) -> None:
        super().__init__()
        self.attention, self.crossattention = Attention(width, width), Attention(width, video_width)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        self.output = _output(hidden, width)

    def forward(self, x: Tensor, mask: Tensor, sequence: Tensor) -> Tensor:
        x = self.attention(x, x, mask)
        # As one text, so that the video's keys and values are made once; no state of a text depends on another here.
        x = self.crossattention(x.flatten(0, 1)[None], sequence[None]).view_as(x)
        return _added(self.output, F.gelu(self.intermediate["dense"](x)), x)


class Fusion(nn.Module):
    """Layers of texts and a video.

    Args:
        depth: how many layers.
        width: of the texts' states.
        hidden: of the layers' MLPs.
        video_width: of the video's sequence.
    """

    def __init__(self, depth: int, width: int, hidden: int, video_width: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(width, hidden, video_width) for _ in range(depth))
        self.itm_head = nn.Linear(width, 2)  # that they do not match, and that they do

    def forward(self, sequence: Tensor, states: Sequence[Tensor]) -> Tensor:
        """Logits (B,) that texts describe a video.

        Args:
            sequence: (L, video width) of the video.
            states: (N, width) of the tokens of each of the B texts.
        """
        x = pad_sequence(list(states), batch_first=True)
        lengths = torch.tensor([len(each) for each in states], device=x.device)
        mask = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        for layer in self.layer:
            x = layer(x, mask[:, None, None], sequence)
        return self.itm_head(x[:, 0])[:, 1]  # type: ignore[no-any-return]


def _output(into: int, width: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(into, width), "LayerNorm": nn.LayerNorm(width, EPSILON)})


def _added(output: nn.ModuleDict, branch: Tensor, x: Tensor) -> Tensor:
    return output["LayerNorm"](output["dense"](branch) + x)  # type: ignore[no-any-return]
