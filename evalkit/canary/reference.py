"""Reference records: one film and the embedding of it by a correctly fed encoder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from evalkit.canary.finding import Finding
from evalkit.demo import CANARY_REFERENCE
from evalkit.errors import UserError, one_line
from evalkit.runtime import bounded

REFERENCE = "canary.npz"  # beside a checkpoint's weights
SHIPPED = CANARY_REFERENCE
# Shipped weights have fewer parameters; hashing a large encoder takes seconds.
SHIPPED_PARAMETERS = 1e7


class Reference(NamedTuple):
    """One film and its embedding by a correctly fed encoder.

    Attributes:
        video: uint8 RGB (T, C, H, W).
        pooled: the embedding, float32 (E,).
        weights: `content` of the encoder; empty if the record does not hold it.
        path: the file that was read.
    """

    video: Tensor
    pooled: Tensor
    weights: str
    path: Path


def film(frames: int, size: int, index: int = 0) -> Tensor:
    """Draw a film by formula, uint8 RGB (T, C, H, W), the same on every machine.

    No two of its channels, corners, axes or directions of time are alike, so that any exchange of them changes it.

    Args:
        frames: T.
        size: height and width in pixels.
        index: which film; each has its own colors and motion.
    """
    # Whole numbers only: no rounding that machines differ in. Sixteen steps and levels keep a record small.
    t = torch.arange(frames).view(-1, 1, 1) * 16 // frames * 16
    y = torch.arange(size).view(1, -1, 1) * 256 // size
    x = torch.arange(size).view(1, 1, -1) * 256 // size
    along, across = 40 + t * (150 - 30 * (index % 3)) // 256, 60 + (t + 64 * index) % 256 * 40 // 100
    disc = (x - along) ** 2 + (y - across) ** 2 < (36 + 8 * (index % 4)) ** 2
    bar = (x > 170) & (y > 250 - t // 2 - 20 * (index % 5)) & (x < 215)
    corner = (x < 50) & (y < 30)
    still = torch.zeros(frames, size, size, dtype=torch.long)
    channels = [30 + y // 16 * 8 + still, 20 + (x + y) // 32 * 6 + still, 60 + t // 3 + (255 - x) // 16 * 2 + still]
    for shape, color in ((disc, (230, 60, 25)), (bar, (40, 90, 220)), (corner, (250, 240, 160))):
        channels = [torch.where(shape, value, channel) for channel, value in zip(channels, color, strict=True)]
    video = torch.stack(channels, 1).roll(index, 1).to(torch.uint8)
    return video.flip(-1) if index % 2 else video


def content(module: nn.Module) -> str:
    """SHA-256 of a module's parameters, independent of their names and their order."""
    digests = sorted(_digest(parameter) for parameter in module.parameters())
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _digest(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(values.tobytes()).hexdigest()


def write_reference(encoder: Any, path: Path) -> None:
    """Writes a reference: a video and this encoder's embedding of it, to detect input mismatches with the same weights.

    The record holds the present output of this encoder. To prove that evalkit feeds a model as it was trained, write
    the record where it was trained, with its own preprocessing. `video` is any uint8 RGB film (T, H, W, 3) of the
    encoder's own frames and size, `pooled` its embedding (E,); put the file beside the weights:

        pooled = model(preprocess(video)[None])[0].float().cpu().numpy()
        numpy.savez_compressed("canary.npz", video=video, pooled=pooled)

    Args:
        encoder: in evaluation mode.
        path: of the file, whose name must be canary.npz to be found beside a checkpoint.
    """
    video = film(encoder.clip.frames, encoder.clip.size)
    with torch.inference_mode():
        pooled = encoder(encoder.clip.normalize(video[None].to(device_of(encoder)))).pooled[0]
    np.savez_compressed(
        path, video=video.permute(0, 2, 3, 1).numpy(), pooled=pooled.float().cpu().numpy(), weights=content(encoder)
    )


def read_reference(path: Path) -> Reference:
    """Read a record from a file.

    Raises:
        UserError: the file cannot be read, or is not a record.
    """
    try:
        bounded.check_archive(path)
        with np.load(path, allow_pickle=False) as file:
            video, pooled = torch.from_numpy(file["video"]), torch.from_numpy(file["pooled"])
            weights = str(file["weights"]) if "weights" in file else ""
    except Exception as error:  # numpy's, zipfile's
        raise UserError(f"cannot read {path}: {one_line(error, 200)}") from error
    if video.dtype != torch.uint8 or video.ndim != 4 or video.shape[-1] != 3 or pooled.ndim != 1:
        raise UserError(
            f"{path}: video is {video.dtype} {tuple(video.shape)} and pooled {tuple(pooled.shape)}; wanted uint8 "
            "(T, H, W, 3) and (E,)"
        )
    return Reference(video.permute(0, 3, 1, 2), pooled.float(), weights, path)


def find_reference(encoder: nn.Module, folder: Path | None) -> Reference | Finding | None:
    """Reads the reference beside a checkpoint, or evalkit's own for the weights that it ships.

    Args:
        encoder: whose weights are compared with the shipped ones, whatever code holds them.
        folder: of the checkpoint, or None.

    Returns:
        The record, a failed finding if it cannot be read, or None if there is no record.
    """
    beside = folder / REFERENCE if folder else None
    try:
        if beside and beside.is_file():
            return read_reference(beside)
        if SHIPPED.is_file():
            shipped = read_reference(SHIPPED)
            small = sum(parameter.numel() for parameter in encoder.parameters()) < SHIPPED_PARAMETERS
            if small and content(encoder) == shipped.weights:
                return shipped
    except UserError as error:
        return Finding("reference", "failed", str(error))
    return None


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters; the CPU if it has none."""
    parameter = next(module.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
