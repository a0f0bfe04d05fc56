"""Checks of the encoder's input: reference record, value range, order of frames and of channels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from evalkit.api import has_text
from evalkit.canary.examined import SAME_HALF, ExaminedEncoder, Unusable, distance
from evalkit.canary.finding import Finding, Outcome
from evalkit.canary.reference import REFERENCE, Reference, content
from evalkit.errors import UserError, one_line

# Distance between unlike clips, relative to their norm: 0.2 and more if the input is right, 0.001 if pixels in 0..1 are
# fed where 0..255 is expected.
CONSTANT, NEARLY_CONSTANT = 0.003, 0.02
# How far a clip moves when its quadrants change places, relative to the distance between unlike clips, and how many
# times as far when the input is 255 times smaller. Right input: 0.0062 and more, but 0.0002 and 20 to 30 times for a
# mean-pooled encoder that hardly depends on positions. Input 255 times too large, so that position embeddings vanish:
# 0.00002 and less, 75 times and more. What lies between is no proof.
PERMUTED, PERMUTED_CERTAIN = 1e-3, 3e-5
SMALLER, SMALLER_CERTAIN = 10, 50

_COMMON = {  # mean and std that encoders are trained with
    "0 and 1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "0.5 and 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "0.5 and 0.25": ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CLIP's": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


def reference(probe: ExaminedEncoder) -> Finding | None:
    """Compares the encoder's pooled output of the reference video with the reference; None without one.

    Raises:
        Unusable: the encoder fails on the film.
    """
    record = probe.record
    if not isinstance(record, Reference):
        return record
    pooled = probe.film_pooled
    expected = record.pooled.to(pooled)[None]
    if expected.shape != pooled.shape:
        widths = f"{pooled.shape[1]} values, and {expected.shape[1]} in {record.path}"
        detail = f"pooled has {widths}, which is of another encoder"
        return Finding("reference", "failed", detail)
    apart = distance(pooled, expected)
    if apart <= SAME_HALF:
        detail = (
            f"pooled differs from {record.path.name} by {apart:.1g} of its norm, allowed {SAME_HALF:g}: layout, value "
            "range, mean, std and channel order are right"
        )
        return Finding("reference", "ok", detail)
    if record.weights and content(probe.encoder) != record.weights:
        why = "the weights are not those that the reference was made with: load those, or create it again"
    else:
        why = _cure(probe, record, expected) or "no common layout, value range, mean, std or channel order explains it"
    detail = f"pooled differs from {record.path} by {apart:.2g} of its norm, allowed {SAME_HALF:g}: {why}"
    return Finding("reference", "failed", detail)


def _cure(probe: ExaminedEncoder, record: Reference, expected: Tensor) -> str:
    """The change to the input that reproduces the record; empty if none does before the deadline."""
    video = record.video[None].to(probe.clips.device)
    for name, change in _changes(probe):
        if time.monotonic() + probe.clip_s > probe.deadline:
            break
        try:
            pooled = probe.encoder(change(video)).pooled.float()
        except Exception:
            continue
        if pooled.shape == expected.shape and distance(pooled, expected) <= SAME_HALF:
            return f"it agrees {name}"
    return ""


def _changes(probe: ExaminedEncoder) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Inputs that the encoder may expect instead of the clip's: uint8 (B, T, C, H, W) to float."""
    clip = probe.clip
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


def constant(probe: ExaminedEncoder) -> Finding:
    """Unlike clips have unlike embeddings.

    Raises:
        Unusable: they do not, or the encoder fails on the film.
    """
    share = probe.spread / max(float(probe.unlike.norm(dim=1).mean()), 1e-30)
    outcome: Outcome = "failed" if share < CONSTANT else "warning" if share < NEARLY_CONSTANT else "ok"
    detail = f"embeddings of unlike clips differ by {100 * share:.2g} % of their norm"
    if outcome != "ok":
        detail += (
            ", so they hardly depend on the clip: the input may be 255 times too small; check "
            f"{probe.value_range_place}"
        )
    finding = Finding("constant", outcome, detail)
    if outcome == "failed":
        raise Unusable(finding)
    return finding


def frame_order(probe: ExaminedEncoder) -> Finding:
    """Whether the order of frames changes the embedding; a fact about the encoder, never a failure.

    Raises:
        Unusable: the encoder fails on the reversed clip.
    """
    clip = probe.clips[:1]
    if clip.shape[1] < 2 or torch.equal(clip, clip.flip(1)):
        return Finding("frame order", "unknown", "not measured: the first clip does not change when it is reversed")
    if late := probe.out_of_time("frame order"):
        return late
    reversed_pooled = probe.pooled(probe.clip.normalize(clip.flip(1)), "frame order")
    moved = float((reversed_pooled - probe.alone.pooled).norm()) / probe.spread
    matters = "matters" if moved > probe.tolerance / 10 else "does not matter"
    return Finding("frame order", "ok", f"{matters}: reversing a clip changes its embedding by {_percent(moved)}")


def _percent(share: float) -> str:
    return f"{100 * share:.2g} % of the distance between two clips"


def value_range(probe: ExaminedEncoder) -> Finding | None:
    """Permuting the four quadrants changes pooled, unless the input scale is so large that positions vanish.

    It fails only where the changes are as small, and as much larger for a smaller input, as no right input makes them.

    None if there is a reference, which proves more.

    Raises:
        Unusable: the encoder fails on the permuted clip.
    """
    if probe.reference:
        return None
    if not probe.weight_stats.trained:
        return Finding("range", "unknown", "not measured: the weights do not look trained")
    if late := probe.out_of_time("range", 2):
        return late
    video = probe.clip.normalize(probe.clips[:1])
    moved = _permutation_distance(probe, video) / probe.spread
    detail = f"exchanging the quarters of each frame changes the embedding by {_percent(moved)}"
    if moved < PERMUTED:  # an encoder without positions stays where it is at any scale
        smaller = _permutation_distance(probe, video / 255) / probe.spread
        if smaller > SMALLER * moved + PERMUTED / 10:
            certain = moved < PERMUTED_CERTAIN and smaller > SMALLER_CERTAIN * moved
            detail += (
                f", and by {100 * smaller:.2g} % when the input is 255 times smaller: the input "
                f"{'is' if certain else 'may be'} too large; check {probe.value_range_place}"
            )
            return Finding("range", "failed" if certain else "warning", detail)
    return Finding("range", "ok", detail)


def _permutation_distance(probe: ExaminedEncoder, video: Tensor) -> float:
    """How far pooled moves when the quadrants of each frame change places; video is float (1, T, C, H, W)."""
    half = (video.shape[-2] // 2, video.shape[-1] // 2)
    pair = torch.cat([video, video.roll(half, (-2, -1))])
    return float(probe.pooled(pair, "range").diff(dim=0).norm())


def colors(probe: ExaminedEncoder) -> Finding | None:
    """A red film is nearer to the word red than a blue one, unless red and blue are swapped.

    None if there is a reference, no text tower, or no trained weights.

    Raises:
        Unusable: the encoder fails on the films.
    """
    if probe.reference or not has_text(probe.encoder) or not probe.weight_stats.trained:
        return None
    if late := probe.out_of_time("colors", 2):
        return late
    plain = torch.full_like(probe.clips, 40)
    plain[0, :, 0] = plain[1, :, 2] = 220
    films = F.normalize(probe.pooled(probe.clip.normalize(plain), "colors"), dim=1)
    try:
        texts = F.normalize(probe.encoder.encode_text(["a red square", "a blue square"]).float(), dim=1)
        agreement = float(F.cosine_similarity(films[0] - films[1], texts[0] - texts[1], dim=0))
    except UserError as error:  # it lacks its tokenizer, which says nothing of what it sees
        return Finding("colors", "unknown", f"no text is embedded: {error}")
    except Exception as error:
        return Finding("colors", "failed", f"encode_text fails: {one_line(error, 200)}")
    least = 3 / math.sqrt(films.shape[1])  # what unrelated directions do not reach
    if abs(agreement) < least:
        detail = f"not measured: the text embeddings do not tell red from blue ({agreement:.2f}, least {least:.2f})"
        return Finding("colors", "unknown", detail)
    if agreement > 0:
        return Finding("colors", "ok", f"red and blue clips match their text embeddings: {agreement:.2f}")
    return Finding("colors", "failed", f"red clips match the text for blue ({agreement:.2f}): the encoder may want BGR")


def normalization(probe: ExaminedEncoder) -> Finding | None:
    """Warns that mean, std and channel order can only be verified with a reference; None if there is one."""
    if probe.reference:
        return None
    return Finding(
        "normalization",
        "unknown",
        f"mean, std and channel order could not be verified: no {REFERENCE} next to the weights. To create one, run "
        f"numpy.savez_compressed('{REFERENCE}', video=..., pooled=...) where the model was trained, with one uint8 RGB "
        "video (T, H, W, 3) and its embedding (E,)",
    )
