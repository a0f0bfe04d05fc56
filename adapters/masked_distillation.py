"""Masked distillation: an encoder that sees part of a video predicts what a frozen teacher makes of all of it."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from evalkit import encoders
from evalkit.api import (
    Batch,
    Encoder,
    EncoderOutput,
    Example,
    Prediction,
    Task,
    can_mask,
    check_text,
    has_text,
    pooled_dim,
)
from evalkit.errors import UserError
from evalkit.heads import tuning
from evalkit.heads.adapter import Training
from evalkit.heads.contrastive import check_negatives, contrastive_loss
from evalkit.heads.optim import Trained, adamw
from evalkit.pretraining import losses, masks
from evalkit.pretraining.decoders import GlobalDecoder, LocalDecoder
from evalkit.runtime.ranks import ALONE, Ranks

MASKS = {"block": masks.block, "tube": masks.tube}


@dataclass(frozen=True)
class Settings(Training):
    """Settings of `adapter=masked_distillation`.

    Attributes:
        teacher: folder or file of the frozen encoder whose tokens and pooled vector are predicted; none: the encoder
            itself as it is before this training.
        target: of the local decoder: tokens, the teacher's at every position, or pixels, those that are masked.
        mask: block, rectangles that last several steps, or tube, the same places in all steps.
        mask_ratio: share of the tokens that the encoder does not see while training.
        local_weight: of the local decoder's loss; 0 leaves the decoder out.
        global_weight: of the loss of the teacher's pooled vector; 0 leaves its decoder out.
        contrastive_weight: of the loss of contrastive training with the examples' texts, of what is visible; 0 needs
            no texts.
        shuffle: shuffle the local decoder's tokens before positions are added to them.
        decoder_width: of both decoders, 6 or more: positions are sines and cosines of step, row and column.
        decoder_depth: layers of each decoder.
        temperature: of the contrastive loss, at the start.
        lr: peak learning rate.
        decoder_lr: that of the decoders, which begin at random; 0 means lr.
        weight_decay: of the matrices.
        epochs: passes over the training examples.
        batch_size: videos in one training step.
    """

    teacher: Path | None = None
    target: Literal["tokens", "pixels"] = "tokens"
    mask: Literal["block", "tube"] = "block"
    mask_ratio: Annotated[float, Interval(ge=0, lt=1)] = 0.65
    local_weight: Annotated[float, Ge(0)] = 1.0
    global_weight: Annotated[float, Ge(0)] = 1.0
    contrastive_weight: Annotated[float, Ge(0)] = 0.0
    shuffle: bool = True
    decoder_width: Annotated[int, Ge(6)] = 512
    decoder_depth: Annotated[int, Gt(0)] = 4
    temperature: Annotated[float, Gt(0)] = 0.07
    lr: Annotated[float, Gt(0)] = 5e-4
    decoder_lr: Annotated[float, Ge(0)] = 0.0
    weight_decay: Annotated[float, Ge(0)] = 0.05
    epochs: Annotated[int, Ge(0)] = 30
    batch_size: Annotated[int, Gt(0)] = 32


class MaskedDistillation(Trained):
    """A student that sees some tokens of each clip, a frozen teacher that sees all, and decoders between them.

    Args:
        student: the encoder that is trained; what of it is trained wants a gradient already.
        teacher: frozen; None where no loss asks it.
        local: predicts each token of the clip; None to leave it out.
        whole: predicts the teacher's pooled vector; None to leave it out.
        settings: of the losses, the mask and the training.
        seed: of masks and orders.
    """

    trains_encoder, divisible = True, True
    scores_val = True

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        local: LocalDecoder | None,
        whole: GlobalDecoder | None,
        settings: Settings,
        seed: int,
    ) -> None:
        super().__init__(settings)
        self.encoder: Any = student
        self.teacher, self.local, self.whole = teacher, local, whole
        self.settings, self.seed = settings, seed
        scale = torch.tensor(math.log(1 / settings.temperature))
        self.log_scale = nn.Parameter(scale, requires_grad=settings.contrastive_weight > 0)

    def configure_optimizers(self) -> Any:
        rate = self.settings.decoder_lr or self.lr
        decoders: dict[nn.Module, float] = {decoder: rate for decoder in (self.local, self.whole) if decoder}
        steps = int(self.trainer.estimated_stepping_batches)
        return adamw(self, self.lr, self.weight_decay, steps, lr_of_parts=decoders)

    def train(self, mode: bool = True) -> MaskedDistillation:
        super().train(mode)
        if self.teacher:
            self.teacher.eval()
        return self

    def check_examples(self, count: int) -> None:
        if self.settings.contrastive_weight:
            check_negatives(count, self.batch_size)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        draw = np.random.default_rng([self.seed % 2**64, self.global_step, self.ranks.rank])
        return self.loss(batch, [draw] * len(batch.examples) * batch.features.shape[1], self.ranks)

    def val_score(self, batch: Batch) -> float:
        """100 x (1 - loss / sum of the weights), which is the mean cosine in percent where all losses are cosines.

        What is masked of an example depends on its id alone.
        """
        draws = [np.random.default_rng(zlib.crc32(example.id.encode())) for example in batch.examples]
        of_views = [draw for draw in draws for _ in range(batch.features.shape[1])]
        weights = self.settings.local_weight + self.settings.global_weight + self.settings.contrastive_weight
        return 100 * (1 - self.loss(batch, of_views).item() / weights)

    def loss(self, batch: Batch, draws: Sequence[np.random.Generator], ranks: Ranks = ALONE) -> Tensor:
        """The weighted sum of the losses of a batch of uint8 video (B, V, T, C, H, W), a scalar.

        Args:
            batch: of examples; only the contrastive loss reads more of them than the video.
            draws: for each of the B V clips, what draws its mask and its order.
            ranks: this process's place among those that have a part of the batch.
        """
        settings, encoder = self.settings, self.encoder
        video = batch.features.flatten(0, 1).to(self.device)
        grid = masks.token_grid(video, encoder.tubelet)
        masked = torch.stack([MASKS[settings.mask](grid, settings.mask_ratio, draw) for draw in draws])
        masked = masked.to(self.device)
        seen: EncoderOutput = encoder(video, masked=masked)
        visible, masked = seen.tokens.flatten(1, 2), masked.flatten(1)
        taught = self._taught(video, grid)
        total = visible.new_zeros(())
        if self.local:
            order = None
            if settings.shuffle:
                orders = [torch.from_numpy(draw.permutation(masked.shape[1])) for draw in draws]
                order = torch.stack(orders).to(self.device)
            predicted = self.local(visible, masked, grid, order)
            if settings.target == "pixels":
                of_tokens = losses.patches(video, encoder.tubelet).to(predicted.dtype)
                local = losses.pixel_error(predicted, of_tokens, masked)
            else:
                assert taught
                local = losses.cosine_distance(predicted, taught.tokens.flatten(1, 2))
            total = total + settings.local_weight * local
        if self.whole:
            assert taught
            total = total + settings.global_weight * losses.cosine_distance(self.whole(visible), taught.pooled)
        if settings.contrastive_weight:
            total = total + settings.contrastive_weight * self._contrastive(batch, seen.pooled, ranks)
        return total

    def _taught(self, video: Tensor, grid: masks.Grid) -> EncoderOutput | None:
        """What the teacher makes of the whole of uint8 clips (B, T, C, H, W); None without a teacher.

        Raises:
            UserError: its tokens are not those of the student's grid.
        """
        if not self.teacher:
            return None
        teacher: Any = self.teacher
        with torch.no_grad():
            taught: EncoderOutput = teacher(teacher.clip.normalize(video))
        steps, places = taught.tokens.shape[1:3]
        if self.local and self.settings.target == "tokens" and (steps, places) != (grid[0], grid[1] * grid[2]):
            raise UserError(
                f"the teacher has {steps} x {places} tokens of these clips, the encoder {grid[0]} x "
                f"{grid[1] * grid[2]}: give another adapter.teacher, or adapter.local_weight=0"
            )
        return taught

    def _contrastive(self, batch: Batch, pooled: Tensor, ranks: Ranks) -> Tensor:
        """The symmetric cross-entropy of videos and their texts, of each example's first view."""
        words = [example.text for example in batch.examples]
        videos = [(str(example.video), example.span) for example in batch.examples]
        video, text = pooled.view(len(words), -1, pooled.shape[-1])[:, 0], self.encoder.encode_text(words)
        return contrastive_loss(video, text, self.log_scale, videos, words, ranks, batch.share)

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        raise UserError(
            "adapter=masked_distillation trains an encoder and answers nothing: evalkit adapt ... out=FOLDER, then "
            "evalkit run ... ckpt=FOLDER with the task's own adapter"
        )

    def adapter_state(self) -> dict[str, Tensor]:
        """The contrastive loss's temperature; decoders are of no use to the encoder that they trained."""
        return {"log_scale": self.log_scale}


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> MaskedDistillation:
    """Trains an encoder to predict, from part of a video, what a frozen teacher makes of the whole.

    VideoPrism's second stage (https://arxiv.org/abs/2402.13217, section 3.3): blocks of tokens are masked and left out
    before the first layer; a local decoder predicts the teacher's token at every position by their cosine, from visible
    tokens and mask tokens, shuffled; a global decoder the teacher's pooled vector, from visible tokens. The teacher is
    the encoder itself, as it was, or another one. No label is read; evalkit adapt keeps the epoch whose loss is the
    lowest on val and writes the encoder, without the decoders. With target=pixels and contrastive_weight=1 it is the
    paper's one-stage training with MAE.

    Raises:
        UserError: the encoder leaves out no tokens, there is nothing to predict, or texts or the teacher are missing.
    """
    (settings,) = points
    if not isinstance(encoder, nn.Module) or not can_mask(encoder) or not getattr(encoder, "tubelet", None):
        raise UserError(
            "adapter=masked_distillation needs an encoder that leaves tokens out: a torch.nn.Module with `tubelet` "
            "whose forward takes `masked` and `mask_ratio`, as those of VideoPrism's and LongViViT's families "
            "(evalkit list encoders)"
        )
    if task.views.window:
        raise UserError("adapter=masked_distillation reads whole clips; this task's are sequences of windows")
    if not settings.local_weight + settings.global_weight + settings.contrastive_weight:
        raise UserError("adapter.local_weight, global_weight and contrastive_weight are 0: nothing is to be learned")
    if settings.contrastive_weight:
        if not has_text(encoder):
            raise UserError("adapter.contrastive_weight needs an encoder with a text tower; this one has none")
        check_text(encoder, "a video")
        if missing := next((e for e in (*task.train, *task.val) if not e.text), None):
            raise UserError(f"adapter.contrastive_weight needs texts; example {missing.id!r} has none: set it to 0")
    _check_mask(encoder, settings)
    asks_tokens = settings.local_weight > 0 and settings.target == "tokens"
    teacher = _teacher(settings.teacher, encoder) if asks_tokens or settings.global_weight else None
    if settings.teacher and not teacher:
        raise UserError(f"adapter.teacher={settings.teacher} has no effect: no loss asks it; leave it out")
    student: Any = encoder
    local, whole = None, None
    shape = settings.decoder_width, settings.decoder_depth
    if settings.local_weight:
        out = getattr(teacher, "dim", 0)
        if settings.target == "pixels":
            out = 3 * math.prod(student.tubelet)
        local = LocalDecoder(encoder.dim, out, *shape)
    if settings.global_weight:
        whole = GlobalDecoder(encoder.dim, pooled_dim(teacher), *shape)
    reached = tuning.tuned_layers(encoder)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(bool(settings.contrastive_weight) or name in reached)
    return MaskedDistillation(encoder, teacher, local, whole, settings, torch.initial_seed())


def _check_mask(encoder: Any, settings: Settings) -> None:
    """Raises UserError where the encoder takes no such mask of its clips, or pixels are to be predicted of none."""
    if settings.mask == "block" and settings.mask_ratio and getattr(encoder, "attention", "joint") != "joint":
        raise UserError(
            f"adapter.mask=block leaves different numbers of tokens in the steps of a clip, and an encoder with "
            f"attention={encoder.attention} takes equally many in each; use adapter.mask=tube"
        )
    clip = encoder.clip
    grid = masks.token_grid(torch.empty(1, clip.frames, 3, clip.size, clip.size, device="meta"), encoder.tubelet)
    masked = MASKS[settings.mask](grid, settings.mask_ratio, np.random.default_rng(0))
    if settings.target == "pixels" and settings.local_weight and not masked.any():
        raise UserError(
            f"adapter.mask_ratio={settings.mask_ratio:g} masks none of a clip's {masked.numel()} tokens, and "
            "adapter.target=pixels predicts those that are masked; increase it, or use target=tokens"
        )


def _teacher(ckpt: Path | None, encoder: nn.Module) -> nn.Module:
    """The frozen teacher: a copy of the encoder, or what a local folder or file holds.

    Raises:
        UserError: there is no such folder or file; other words may name code, which no adapter's file should run.
    """
    if not ckpt:
        return copy.deepcopy(encoder).eval().requires_grad_(False)
    if not ckpt.expanduser().exists():
        raise UserError(f"adapter.teacher={ckpt}: no such folder or file; wanted a checkpoint, as evalkit adapt writes")
    teacher = encoders.load_encoder(str(ckpt))
    assert isinstance(teacher, nn.Module)
    return teacher
