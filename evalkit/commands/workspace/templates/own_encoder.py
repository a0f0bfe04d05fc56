"""own_encoder, an encoder of your own.

    evalkit canary ckpt=own_encoder:encoder                       # is it fed what it was trained on?
    evalkit run task=folder mini=true ckpt=own_encoder:encoder
    evalkit run task=folder mini=true ckpt=own_encoder:encoder encoder.weights=weights.pt

Put your network in the place of `Network`; what is above and below it stays mostly as it is.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput

# What the network was trained on. evalkit reads frames so and normalizes them, and the result says so. Nothing can tell
# by itself that these are wrong: a network that was trained on other values is merely worse.
CLIP = Clip(
    frames=8,
    size=64,
    # Of red, green and blue, in this order: code that read its videos with OpenCV was trained on blue, green and red.
    # Turn the channels round in `forward` then: video.flip(2).
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    # What pixels 0 and 255 become before mean and std: (0, 255) if the network never divided by 255, (-1, 1) if it
    # was trained on that range with mean 0 and std 1.
    value_range=(0.0, 1.0),
    # How a frame becomes a square: crop (shorter side to size, center), squash, or squash_crop; share=0.875 where 224
    # of 256 pixels were cut.
    resize="crop",
)


class Network(nn.Module):
    """Stands for yours: a strided convolution over space and time, then one layer of attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Conv3d(3, width, (2, 16, 16), (2, 16, 16))
        self.position = nn.Parameter(torch.randn(CLIP.frames // 2 * (CLIP.size // 16) ** 2, width) * 0.02)
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, video: Tensor) -> Tensor:
        """Video (B, C, T, H, W) -> tokens (B, T', H', W', D)."""
        grid = self.patch(video)  # (B, D, T', H', W')
        tokens = grid.flatten(2).transpose(1, 2) + self.position
        tokens = self.norm(self.layer(tokens))
        return tokens.unflatten(1, grid.shape[2:])  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """What evalkit asks for: `clip`, `dim` and `forward`. With `encode_text(texts) -> (B, D)` it is zero-shot, too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.clip, self.dim = CLIP, width
        self.network = Network(width)

    def forward(self, video: Tensor) -> EncoderOutput:
        """Video (B, T, C, H, W), normalized as the clip says -> tokens (B, T', S, D) and pooled (B, D), float."""
        # The layout: evalkit has frames before channels; many networks want (B, C, T, H, W), as this one.
        grid = self.network(video.transpose(1, 2))
        # S is space: rows and columns together, without class tokens; T' is time.
        tokens = grid.flatten(2, 3)
        return EncoderOutput(tokens, tokens.mean((1, 2)))


def encoder(width: int = 64, weights: Path | None = None) -> Encoder:
    """Makes the encoder; its parameters are the keys of `encoder.*`.

    Args:
        width: of the tokens.
        weights: file of a state_dict; none: random weights.
    """
    torch.manual_seed(0)  # random weights are the same in each process, and so are their features
    made = Encoder(width)
    if weights:
        # weights_only=True reads no code. strict is the default: with strict=False a name that differs by a prefix
        # leaves a layer random, and nobody notices.
        made.network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    # Dropout and batch norm in training mode give each clip other features at each look.
    return made.eval()


# Proof that clip, layout and order of channels are right comes from where the network was trained. Two lines there,
#     pooled = model(preprocess(video)[None])[0].float().cpu().numpy()  # video: any uint8 RGB film (T, H, W, 3)
#     numpy.savez_compressed("canary.npz", video=video, pooled=pooled)
# and the test beside this file compares with canary.npz where it finds it.
