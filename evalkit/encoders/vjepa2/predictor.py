"""V-JEPA 2's predictor: what the encoder's tokens will be, after the end of a clip.

transformers has its layers. The authors' evaluation of action anticipation
(https://github.com/facebookresearch/vjepa2, evals/action_anticipation_frozen) shows a classifier the encoder's tokens
and, behind them, those that the predictor gives of one time step in the future.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evalkit.errors import UserError

HEADS = 12  # of the published ones, at every size of the encoder
MASK_TOKEN = 1  # of several, the one that the authors' code takes where it is not told which


class Predictor(nn.Module):
    """Tokens (B, T', S, D) of a clip -> those of one later time step (B, 1, S, D).

    Args:
        model: transformers' predictor.
        ahead: time steps between the clip's end and what is predicted.
    """

    def __init__(self, model: Any, ahead: int) -> None:
        super().__init__()
        self.model, self.ahead = model, ahead

    def forward(self, tokens: Tensor, seen: Tensor, later: Tensor) -> Tensor:
        """See the class.

        Args:
            tokens: of the clip.
            seen: their positions (1, T' x S), as the blocks take them apart.
            later: positions (1, S) of what is predicted.
        """
        masks = self.model.embeddings.mask_tokens
        asked = masks[MASK_TOKEN % len(masks)].expand(len(tokens), later.shape[1], -1)
        x = torch.cat([self.model.embeddings.predictor_embeddings(tokens.flatten(1, 2)), asked], 1)
        for block in self.model.layer:
            x = block(x, torch.cat([seen, later], 1))[0]
        return self.model.proj(self.model.layernorm(x[:, -later.shape[1] :]))[:, None]  # type: ignore[no-any-return]


def sizes(weights: dict[str, Tensor], path: object) -> dict[str, Any]:
    """Of a predictor in the authors' file, the names and values of transformers' configuration.

    Raises:
        UserError: these are the weights of no predictor of V-JEPA 2.
    """
    embed, first = weights.get("predictor_embed.weight"), weights.get("predictor_blocks.0.mlp.fc1.weight")
    if embed is None or embed.ndim != 2 or first is None or len(embed) % HEADS:
        raise UserError(
            f"encoder.ahead= asks for V-JEPA 2's predictor, and {path} holds none: wanted `predictor` beside the "
            "encoder, as in the authors' vitl.pt, or the Hugging Face folder; or leave encoder.ahead= out"
        )
    return {
        "pred_hidden_size": len(embed),
        "pred_num_attention_heads": HEADS,
        "pred_num_hidden_layers": len({name.split(".")[1] for name in weights if name.startswith("predictor_blocks.")}),
        "pred_num_mask_tokens": sum(name.startswith("mask_tokens.") for name in weights),
        "pred_mlp_ratio": (len(first) + 0.5) / len(embed),  # transformers cuts width times ratio to a whole number
    }
