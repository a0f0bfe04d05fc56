"""Before anything is encoded: a few clips that prove that an encoder is fed, and answers, as evalkit takes it to.

What an encoder was trained on cannot be read off its weights. A reference record says it: one film as uint8 pixels and
what the encoder made of it where it was trained. Compared with it, every fault of the seam shows: layout, range, mean
and std, order of channels, training mode, altered weights. Without one, what can be known is measured, and what cannot
is said.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, has_text, pooled_dim
from evalkit.canary.finding import Finding, Outcome
from evalkit.canary.reference import REFERENCE, Reference, content, device_of, film, read_reference
from evalkit.canary.weights import weight_statistics
from evalkit.demo import CANARY_REFERENCE
from evalkit.errors import UserError, one_line

SHIPPED = CANARY_REFERENCE

# Relative to an embedding's norm. Other machines, batch sizes and kernels differ by 1e-6 in float32 and 0.004 in half;
# the smallest fault of the seam, CLIP's mean and std for ImageNet's, by 0.08 (demo encoder).
SAME_FLOAT, SAME_HALF = 1e-3, 0.02
# Distance between unlike clips, relative to their norm: 0.2 and more where the input is right, 0.001 where pixels that
# were to be 0..255 come as 0..1.
CONSTANT, NEARLY_CONSTANT = 0.003, 0.02
# How far a film moves when its quarters change places, relative to the distance between unlike clips: 0.0062 and more
# where the input is right, 0.0002 and less where it is 255 times too large and drowns the positions.
PLACELESS = 1e-3

_COMMON = {  # mean and std that encoders are trained with
    "0 and 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "0.5 and 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "0.5 and 0.25": ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CLIP's": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


def examine(encoder: nn.Module, clips: Tensor, *, folder: Path | None = None, budget_s: float = 20.0) -> list[Finding]:
    """What is right and wrong between evalkit and an encoder; whatever the encoder raises becomes a finding.

    Four clips are encoded in any case, and while time is left at most eight more, or where a record disagrees as many
    as there are common mistakes. The encoder is used in the mode that it is in, where it is; its mode, its buffers and
    torch's random state are afterwards as they were.

    Args:
        encoder: with `clip` and `dim`.
        clips: of the task, uint8 RGB (N, T, C, H, W), N at least 2; the first two are used.
        folder: of the checkpoint, where a reference record may lie.
        budget_s: seconds after which nothing more is begun beyond those four; what is then not looked at is unknown.
    """
    device = device_of(encoder)
    with _as_found(encoder, device), torch.inference_mode():
        return _Examination(encoder, clips[:2].to(device), folder, time.monotonic() + budget_s).findings()


class _Broken(Exception):
    """The encoder gave nothing that more could be asked about."""


class _Examination:
    """The state of one examination: the encoder, two clips of the task, the time that is left, what was found."""

    def __init__(self, encoder: Any, clips: Tensor, folder: Path | None, deadline: float) -> None:
        self.encoder = encoder
        self.clip: Clip = encoder.clip
        self.clips, self.folder, self.deadline = clips, folder, deadline
        self.clip_s = 0.0  # that one clip takes
        self.found: list[Finding] = []
        half = any(p.dtype in (torch.float16, torch.bfloat16) for p in encoder.parameters())
        self.same = SAME_HALF if half or torch.is_autocast_enabled(clips.device.type) else SAME_FLOAT

    def findings(self) -> list[Finding]:
        self._training_mode()
        trained = self._weights()
        try:
            both = self._output()
            alone = self._batch(both)
            reference = self._reference()
            video = reference.video if reference else film(self.clips.shape[1], self.clips.shape[-1], 1)
            video = video[None].to(self.clips.device)
            pooled = self._pooled(self.clip.normalize(video), "film")
            if reference:
                self._compare(reference, pooled)
            unlike = torch.cat([both.pooled.float(), pooled]) if pooled.shape[1:] == both.pooled.shape[1:] else None
            spread = self._constant(both.pooled.float() if unlike is None else unlike)
            self._order(alone, spread)
            if not reference:
                self._range(spread, trained)
                self._colors(trained)
                self._say(
                    "normalization",
                    "unknown",
                    f"mean, std and order of channels are not proven: no {REFERENCE} beside the weights. Where they "
                    "were trained, numpy.savez_compressed('canary.npz', video=..., pooled=...) of one uint8 RGB film "
                    "(T, H, W, 3) and its embedding (E,) makes one",
                )
            self._layers(alone)
        except _Broken:
            pass
        return self.found

    def _say(self, check: str, outcome: Outcome, detail: str) -> None:
        self.found.append(Finding(check, outcome, detail))

    def _time_for(self, check: str, clips: int = 1) -> bool:
        """Whether this many more clips fit into the time; says so where they do not."""
        if time.monotonic() + clips * self.clip_s <= self.deadline:
            return True
        self._say(check, "unknown", f"not measured: one clip takes {self.clip_s:.1f} s and the time was over")
        return False

    def _encode(self, video: Tensor, **settings: Any) -> Any:
        return self.encoder(video, **settings)

    def _pooled(self, video: Tensor, check: str) -> Tensor:
        """Pooled, float32 (B, E), of an input like one that the encoder took before."""
        try:
            pooled: Tensor = self._encode(video).pooled.float()
        except Exception as error:
            self._say(check, "failed", f"the encoder fails on {tuple(video.shape)}: {one_line(error, 200)}")
            raise _Broken from error
        if not torch.isfinite(pooled).all():
            self._say(check, "failed", f"pooled of {tuple(video.shape)} is NaN or infinity, for other clips it is not")
            raise _Broken
        return pooled

    def _training_mode(self) -> None:
        names = [name or type(module).__name__ for name, module in self.encoder.named_modules() if module.training]
        if names:
            self._say(
                "training mode",
                "failed",
                f"{len(names)} modules are in training mode, {names[0]} first: call eval() on the encoder",
            )
        else:
            self._say("training mode", "ok", "every module is in evaluation mode")

    def _weights(self) -> bool:
        """Whether the weights look trained."""
        wear = weight_statistics(self.encoder)
        self._say(*wear.finding())
        return wear.trained

    def _output(self) -> EncoderOutput:
        """What the encoder makes of both clips, of the right layout."""
        video = self.clip.normalize(self.clips)
        started = time.monotonic()
        try:
            encoded = self._encode(video)
        except Exception as error:
            self._say("layout", "failed", self._swapped(video, error))
            raise _Broken from error
        self.clip_s = (time.monotonic() - started) / len(video)
        wrong = self._misfit(encoded)
        self._say("layout", "failed" if wrong else "ok", wrong or _shapes(encoded))
        if wrong:
            raise _Broken
        tensors = (encoded.tokens, encoded.pooled)
        broken = [value for value in tensors if not torch.isfinite(value).all()]
        share = sum(float((~torch.isfinite(value)).sum()) for value in broken) / sum(v.numel() for v in tensors)
        if broken:
            self._say(
                "finite",
                "failed",
                f"{share:.1%} of the output is NaN or infinity: damaged weights, or too large for half floats",
            )
            raise _Broken
        self._say("finite", "ok", "no NaN, no infinity")
        return encoded  # type: ignore[no-any-return]

    def _swapped(self, video: Tensor, error: Exception) -> str:
        """Why the encoder failed on (B, T, C, H, W): it may want (B, C, T, H, W)."""
        try:
            self._encode(video.transpose(1, 2))
        except Exception:
            return f"the encoder fails on {tuple(video.shape)} (B, T, C, H, W): {one_line(error, 200)}"
        return (
            f"the encoder takes (B, C, T, H, W), and fails on (B, T, C, H, W): T and C are swapped. Let its forward "
            f"begin with video.transpose(1, 2) ({one_line(error, 200)})"
        )

    def _misfit(self, encoded: Any) -> str:
        """What is wrong with an output's layout; empty where nothing is."""
        tokens, pooled = getattr(encoded, "tokens", None), getattr(encoded, "pooled", None)
        if not isinstance(tokens, Tensor) or not isinstance(pooled, Tensor):
            return f"the encoder returns a {type(encoded).__name__}; wanted evalkit.api.EncoderOutput(tokens, pooled)"
        if not tokens.is_floating_point() or not pooled.is_floating_point():
            return f"tokens are {tokens.dtype} and pooled {pooled.dtype}; wanted floats"
        batch, frames = self.clips.shape[:2]
        dim, width = self.encoder.dim, pooled_dim(self.encoder)
        if tokens.ndim != 4 or tokens.shape[0] != batch or tokens.shape[3] != dim:
            return f"tokens are {tuple(tokens.shape)}; wanted (B, T', S, D) with B = {batch}, D = dim = {dim}"
        if pooled.shape != (batch, width):
            return f"pooled is {tuple(pooled.shape)}; wanted (B, E) with B = {batch}, E = pooled_dim or dim = {width}"
        if tokens.shape[1] > frames:
            return (
                f"tokens are {tuple(tokens.shape)}; wanted (B, T', S, D) with no more steps T' than the {frames} frames"
            )
        return ""

    def _batch(self, both: EncoderOutput) -> EncoderOutput:
        """The first clip alone; the same again, and in a batch."""
        video = self.clip.normalize(self.clips[:1])
        try:
            alone: EncoderOutput = self._encode(video)
            apart = max(_apart(alone.tokens, both.tokens[:1]), _apart(alone.pooled, both.pooled[:1]))
            differs = apart
            if apart > self.same:  # because of the batch, or by itself: only a repetition can tell
                again = self._encode(video)
                differs = max(_apart(alone.tokens, again.tokens), _apart(alone.pooled, again.pooled))
        except Exception as error:
            self._say("batch", "failed", f"the encoder fails on a batch of one: {one_line(error, 200)}")
            raise _Broken from error
        told = f"the same clip twice differs by {differs:.1g} of its norm, allowed {self.same:g}"
        if differs > self.same:
            self._say(
                "determinism", "failed", f"{told}: something is drawn at random (dropout, masking); switch it off"
            )
            self._say("batch", "unknown", "not measured: not even the same clip gives the same embedding")
            return alone
        self._say("determinism", "ok", told)
        told = f"alone and in a batch a clip differs by {apart:.1g} of its norm, allowed {self.same:g}"
        if apart > self.same:
            why = "clips in a batch change each other (batch statistics, a wrong reshape)"
            self._say("batch", "failed", f"{told}: {why}")
        else:
            self._say("batch", "ok", told)
        return alone

    def _reference(self) -> Reference | None:
        """The record beside the weights; evalkit's own for the demo's weights, whatever code holds them."""
        beside = self.folder / REFERENCE if self.folder else None
        try:
            if beside and beside.is_file():
                return read_reference(beside)
            if SHIPPED.is_file():
                shipped = read_reference(SHIPPED)
                # a cheap look first: hashing a large encoder takes seconds
                if sum(p.numel() for p in self.encoder.parameters()) < 1e7 and content(self.encoder) == shipped.weights:
                    return shipped
        except UserError as error:
            self._say("reference", "failed", str(error))
        return None

    def _compare(self, reference: Reference, pooled: Tensor) -> None:
        wanted = reference.pooled.to(pooled)[None]
        if wanted.shape != pooled.shape:
            self._say(
                "reference",
                "failed",
                f"pooled has {pooled.shape[1]} values, in {reference.path} {wanted.shape[1]}: it is of another encoder",
            )
            return
        apart = _apart(pooled, wanted)
        if apart <= SAME_HALF:
            self._say(
                "reference",
                "ok",
                f"pooled differs by {apart:.1g} of its norm from {reference.path.name}, allowed {SAME_HALF:g}: layout, "
                "range, mean, std and channels are right",
            )
            return
        if reference.weights and content(self.encoder) != reference.weights:
            why = "the weights are not those of the record: take the right ones, or write the record again"
        else:
            why = self._cure(reference, wanted) or "no common layout, range, mean, std or order of channels mends it"
        self._say(
            "reference",
            "failed",
            f"pooled differs by {apart:.2g} of its norm from {reference.path}, allowed {SAME_HALF:g}: {why}",
        )

    def _cure(self, reference: Reference, wanted: Tensor) -> str:
        """Which change to the input gives what the record says; empty where none does."""
        video = reference.video[None].to(self.clips.device)
        for name, change in self._changes():
            if time.monotonic() + self.clip_s > self.deadline:
                break
            try:
                pooled = self._encode(change(video)).pooled.float()
            except Exception:
                continue
            if pooled.shape == wanted.shape and _apart(pooled, wanted) <= SAME_HALF:
                return f"it agrees {name}"
        return ""

    def _changes(self) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
        """Inputs that an encoder may want in place of the clip's."""
        clip = self.clip
        yield "when fed BGR: reverse the channels", lambda video: clip.normalize(video.flip(2))
        yield "when T and C are swapped: transpose(1, 2)", lambda video: clip.normalize(video).transpose(1, 2)
        yield "when H and W are swapped: transpose(3, 4)", lambda video: clip.normalize(video).transpose(3, 4)
        yield "when the input is 255 times larger", lambda video: clip.normalize(video) * 255
        yield "when the input is 255 times smaller", lambda video: clip.normalize(video) / 255
        for name, (mean, std) in _COMMON.items():
            other = replace(clip, mean=mean, std=std, value_range=(0.0, 1.0))
            yield f"with value_range (0, 1), mean and std {name}", other.normalize
        raw = replace(clip, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), value_range=(0.0, 255.0))
        yield "with value_range (0, 255), mean 0 and std 1", raw.normalize

    def _constant(self, pooled: Tensor) -> float:
        """The largest distance between unlike clips."""
        spread = float(torch.cdist(pooled, pooled).max())
        share = spread / max(float(pooled.norm(dim=1).mean()), 1e-30)
        why = "the embedding hardly depends on the clip: the input may be 255 times too small (clip.value_range)"
        outcome: Outcome = "failed" if share < CONSTANT else "warning" if share < NEARLY_CONSTANT else "ok"
        self._say(
            "constant",
            outcome,
            f"unlike clips are {share:.2g} of their norm apart" + ("" if outcome == "ok" else f": {why}"),
        )
        if share < CONSTANT:
            raise _Broken
        return spread

    def _order(self, alone: EncoderOutput, spread: float) -> None:
        clip = self.clips[:1]
        if clip.shape[1] < 2 or torch.equal(clip, clip.flip(1)):
            self._say("frame order", "unknown", "the first clip is the same backwards")
        elif self._time_for("frame order"):
            moved = (
                float((self._pooled(self.clip.normalize(clip.flip(1)), "frame order") - alone.pooled).norm()) / spread
            )
            matters = "matters" if moved > self.same / 10 else "does not matter"
            self._say("frame order", "ok", f"{matters}: a clip shown backwards moves {moved:.2g} of the way to another")

    def _range(self, spread: float, trained: bool) -> None:
        """An input that is far too large drowns the positions, so that a film may be cut up and laid anew."""
        if not trained:
            self._say("range", "unknown", "not measured: the weights do not look trained")
        elif self._time_for("range", 2):
            video = self.clip.normalize(self.clips[:1])
            moved = self._moved_by_places(video) / spread
            told = f"exchanging the quarters of each frame moves {moved:.2g} of the way to another clip"
            # An encoder without positions stays where it is at any scale.
            if (
                moved < PLACELESS
                and (smaller := self._moved_by_places(video / 255) / spread) > 10 * moved + PLACELESS / 10
            ):
                told += f", {smaller:.2g} when the input is 255 times smaller: it is too large (clip.value_range)"
                self._say("range", "failed", told)
            else:
                self._say("range", "ok", told)

    def _moved_by_places(self, video: Tensor) -> float:
        """How far pooled moves when the quarters of each frame change places."""
        half = (video.shape[-2] // 2, video.shape[-1] // 2)
        pair = torch.cat([video, video.roll(half, (-2, -1))])
        return float(self._pooled(pair, "range").diff(dim=0).norm())

    def _colors(self, trained: bool) -> None:
        """Whether red films are nearer to the word red than blue ones: they are not where red and blue are swapped."""
        if not has_text(self.encoder) or not trained or not self._time_for("colors", 2):
            return
        plain = torch.full_like(self.clips, 40)
        plain[0, :, 0] = plain[1, :, 2] = 220
        films = F.normalize(self._pooled(self.clip.normalize(plain), "colors"), dim=1)
        try:
            words = F.normalize(self.encoder.encode_text(["a red square", "a blue square"]).float(), dim=1)
            agree = float(F.cosine_similarity(films[0] - films[1], words[0] - words[1], dim=0))
        except Exception as error:
            self._say("colors", "failed", f"encode_text fails: {one_line(error, 200)}")
            return
        least = 3 / math.sqrt(films.shape[1])  # what unrelated directions do not reach
        if abs(agree) < least:
            self._say(
                "colors", "unknown", f"text does not tell red from blue: {agree:.2f}, at least {least:.2f} wanted"
            )
        elif agree > 0:
            self._say("colors", "ok", f"text agrees with red and blue: {agree:.2f}")
        else:
            self._say("colors", "failed", f"text takes red for blue ({agree:.2f}): the encoder may want BGR")

    def _layers(self, alone: EncoderOutput) -> None:
        if "layers" not in inspect.signature(self.encoder.forward).parameters or not self._time_for("layers"):
            return
        try:
            encoded: EncoderOutput = self._encode(self.clip.normalize(self.clips[:1]), layers=2)
            shapes = [tuple(tokens.shape) for tokens in encoded.layers]
        except UserError as error:  # it has one layer
            self._say("layers", "unknown", f"layers=2 is refused: {error}")
            return
        except Exception as error:
            self._say("layers", "failed", f"the encoder fails on layers=2: {one_line(error, 200)}")
            return
        wrong = ""
        if shapes != [tuple(alone.tokens.shape)] * 2:
            wrong = f"layers=2 gives {shapes}; wanted two of {tuple(alone.tokens.shape)}"
        elif (apart := _apart(encoded.layers[-1], encoded.tokens)) > self.same:
            wrong = f"the last of layers differs from tokens by {apart:.1g} of its norm; it must be the same"
        elif (apart := _apart(encoded.tokens, alone.tokens)) > self.same:
            wrong = f"tokens differ by {apart:.1g} of their norm when layers=2 is asked for"
        self._say("layers", "failed" if wrong else "ok", wrong or "layers=2 gives two, the last of them tokens")


@contextmanager
def _as_found(encoder: nn.Module, device: torch.device) -> Iterator[None]:
    """Whatever happens inside, buffers, modes and random numbers go on as if it had not."""
    modes = [(module, module.training) for module in encoder.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in encoder.buffers()]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module, mode in modes:
            module.training = mode


def _apart(a: Tensor, b: Tensor) -> float:
    """Distance between two outputs relative to the second's norm; infinity where their shapes differ."""
    if a.shape != b.shape:
        return math.inf
    return float((a.float() - b.float()).norm() / b.float().norm().clamp(min=1e-30))


def _shapes(encoded: EncoderOutput) -> str:
    return f"tokens {tuple(encoded.tokens.shape)} (B, T', S, D), pooled {tuple(encoded.pooled.shape)} (B, E)"
