"""Masked distillation: what the student sees, what the teacher says, and what is left when it is over."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evalkit.api import Batch, Clip, Example, Task, Views
from evalkit.encoders import videoprism
from evalkit.errors import UserError
from evalkit.metrics.classification import accuracy
from evalkit.pretraining.masks import block
from evalkit.weights import checkpoint
from tests.given import CLIP, Plain, make_adapter, small

TEXTS = Task(test=(), score=accuracy)
EXAMPLES = [Example(str(i), Path(str(i)), text=text) for i, text in enumerate(("a red ring grows", "a cross blinks"))]
SMALL = {"decoder_width": 16, "decoder_depth": 1}


def prism(vocabulary: Path | None = None) -> Any:
    """A tiny VideoPrism, whose attention is within frames and then along time, with attention pooling."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"patch": 8, "dim": 24, "heads": 2, "hidden": 48, "spatial_depth": 2, "temporal_depth": 1}
    text = {"vocabulary": 200, "depth": 1, "heads": 2, "hidden": 32, "tokens": 32} if vocabulary else None
    return videoprism.encoder(
        Clip(frames=4, size=32), vocabulary, **sizes, auxiliary_depth=1, pooler=48, text=text
    ).eval()


def encoder(family: str, vocabulary: Path | None = None) -> Any:
    return prism(vocabulary) if family == "videoprism" else small(vocabulary)


def film(seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (2, 1, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def distillation(student: Any, task: Task = TEXTS, **settings: Any) -> Any:
    return make_adapter("masked_distillation", student, task, **{**SMALL, **settings})


def blocks(student: Any) -> Tensor:
    """(2, T', S), another mask for each of two clips."""
    t, h, w = student.tubelet
    grid = 4 // t, 32 // h, 32 // w
    return torch.stack([block(grid, 0.65, np.random.default_rng(seed)) for seed in range(2)])


@pytest.mark.parametrize("family", ["videoprism", "longvivit"])
def test_the_student_sees_no_masked_token(family: str) -> None:
    """Where all pixels of the masked tokens are others, the output is the same to the bit, and else it is not."""
    student = encoder(family)
    masked, video, other = blocks(student), film(1)[:, 0], film(2)[:, 0]
    t, h, w = student.tubelet
    pixels = masked.view(2, 4 // t, 32 // h, 32 // w)
    for axis, size in ((1, t), (2, h), (3, w)):
        pixels = pixels.repeat_interleave(size, axis)
    changed = torch.where(pixels[:, :, None], other, video)
    assert not torch.equal(changed, video)
    with torch.no_grad():
        one, two, three = (student(x, masked=masked) for x in (video, changed, other))
    assert torch.equal(one.tokens, two.tokens) and torch.equal(one.pooled, two.pooled)
    assert not torch.equal(one.tokens, three.tokens)
    assert one.tokens.shape == (2, 1, int((~masked[0]).sum()), 24)


@pytest.mark.parametrize("family", ["videoprism", "longvivit"])
def test_without_a_mask_the_tokens_are_those_of_the_whole_clip(family: str) -> None:
    student, video = encoder(family), film()[:, 0]
    with torch.no_grad():
        whole = student(CLIP.normalize(video))
        kept = student(video, masked=torch.zeros(whole.tokens.shape[:3], dtype=torch.bool))
    torch.testing.assert_close(kept.tokens.view(whole.tokens.shape), whole.tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(kept.pooled, whole.pooled, atol=1e-5, rtol=1e-5)


def test_a_frame_attends_to_its_own_visible_tokens_alone() -> None:
    """VideoPrism's first layers on a frame whose mask is its own: as on the visible tokens without any padding."""
    student, masked = prism(), blocks(prism())
    with torch.no_grad():
        video = CLIP.normalize(film()[:, 0])
        seen = student(video, masked=masked).tokens
        embedded = student.vision.spatial_embeddings(video, True).unflatten(0, (2, 4))
        spatial = torch.zeros(2, 4, 16, 24)
        for b in range(2):
            for t in range(4):
                x = embedded[b, t][~masked[b, t]][None]
                for layer in student.vision.spatial_layers:
                    x = layer(x)
                spatial[b, t, ~masked[b, t]] = student.vision.layernorm1(x)[0]
        times = student.vision.temporal_embeddings.position_embeddings[0]
        for b in range(2):
            wanted = torch.zeros(4, 16, 24)
            for place in range(16):
                kept = ~masked[b, :, place]
                if kept.any():
                    x = (spatial[b, :, place] + times)[kept][None]
                    for layer in student.vision.temporal_layers:
                        x = layer(x)
                    wanted[kept, place] = student.vision.layernorm2(x)[0]
            torch.testing.assert_close(seen[b, 0], wanted[~masked[b]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["videoprism", "longvivit"])
@pytest.mark.parametrize(
    "settings", [{}, {"shuffle": False}, {"global_weight": 0.0}, {"local_weight": 0.0, "mask": "tube"}]
)
def test_the_teacher_is_frozen_and_the_student_learns(family: str, settings: dict[str, Any]) -> None:
    student = encoder(family)
    adapter = distillation(student, **settings).train()
    before = checkpoint.sha256(adapter.teacher), checkpoint.sha256(student)
    optimizer = torch.optim.SGD([p for p in adapter.parameters() if p.requires_grad], lr=0.1)
    batch = Batch(EXAMPLES, film())
    scores = [adapter.val_score(batch)]
    for _ in range(3):
        optimizer.zero_grad()
        adapter.loss(batch, [np.random.default_rng(0)] * 2).backward()
        assert all(p.grad is not None for p in optimizer.param_groups[0]["params"])
        optimizer.step()
    scores.append(adapter.val_score(batch))
    assert scores[1] > scores[0] and adapter.val_score(batch) == scores[1]  # the same masks again
    assert checkpoint.sha256(adapter.teacher) == before[0] == before[1] != checkpoint.sha256(student)
    assert not adapter.teacher.training and all(p.grad is None for p in adapter.teacher.parameters())
    assert adapter.divisible and adapter.adapter_state().keys() == {"log_scale"}


@pytest.mark.parametrize(("decoder_lr", "wanted"), [(2e-3, 2e-3), (0.0, 1e-4)])
@pytest.mark.parametrize("settings", [{}, {"local_weight": 0.0}])
def test_decoders_have_their_own_rate(settings: dict[str, Any], decoder_lr: float, wanted: float) -> None:
    adapter = distillation(encoder("longvivit"), lr=1e-4, decoder_lr=decoder_lr, **settings)
    adapter.trainer = SimpleNamespace(estimated_stepping_batches=10)
    groups = adapter.configure_optimizers()["optimizer"].param_groups
    rates = {p: group["initial_lr"] for group in groups for p in group["params"]}
    names = {name: rates[p] for name, p in adapter.named_parameters() if p.requires_grad}
    assert {rate for name, rate in names.items() if name.startswith("encoder.")} == {1e-4}
    assert {rate for name, rate in names.items() if name.startswith(("local.", "whole."))} == {wanted}


def test_the_loss_of_a_batch_is_the_mean_of_its_parts() -> None:
    """So that several processes may each take a part."""
    adapter, video = distillation(small()), film()
    draws = [np.random.default_rng(seed) for seed in range(2)]
    with torch.no_grad():
        whole = adapter.loss(Batch(EXAMPLES, video), draws)
        parts = [
            adapter.loss(Batch(EXAMPLES[i : i + 1], video[i : i + 1]), [np.random.default_rng(i)]) for i in range(2)
        ]
    assert whole.item() == pytest.approx(torch.stack(parts).mean().item(), abs=1e-5)


@pytest.mark.parametrize("family", ["videoprism", "longvivit"])
def test_one_stage_reconstructs_pixels_and_contrasts_with_texts(family: str, vocabulary: Path) -> None:
    settings: dict[str, Any] = {"target": "pixels", "contrastive_weight": 1.0, "global_weight": 0.0, "shuffle": False}
    adapter = distillation(encoder(family, vocabulary), **settings)
    assert adapter.teacher is None and adapter.whole is None and adapter.divisible
    adapter.loss(Batch(EXAMPLES, film()), [np.random.default_rng(0)] * 2).backward()
    grads = {name.split(".")[1] for name, p in adapter.encoder.named_parameters("encoder") if p.grad is not None}
    assert {"text"} < grads and adapter.log_scale.grad is not None


def test_a_contrastive_loss_needs_other_videos_and_a_tokenizer(vocabulary: Path) -> None:
    settings: dict[str, Any] = {"contrastive_weight": 1.0, "local_weight": 0.0, "global_weight": 0.0}
    with pytest.raises(UserError, match="adapter.batch_size=1: a contrastive loss compares the videos of a batch"):
        distillation(small(vocabulary), batch_size=1, **settings).check_examples(9)
    distillation(small(vocabulary), batch_size=1).check_examples(1)
    student: Any = small(vocabulary)
    student.text.tokenizer = None
    with pytest.raises(UserError, match="no tokenizer"):
        distillation(student, **settings)


def test_an_encoder_that_knows_no_masks_is_told() -> None:
    with pytest.raises(UserError, match="needs an encoder that leaves tokens out"):
        distillation(Plain())


def test_the_text_tower_stays_as_it_is_without_a_contrastive_loss(vocabulary: Path) -> None:
    adapter = distillation(prism(vocabulary))
    frozen = {name.split(".")[0] for name, p in adapter.encoder.named_parameters() if not p.requires_grad}
    assert frozen == {"text", "auxiliary", "head", "head_norm"}


def test_another_teacher_is_read_from_a_folder(tiny: Path) -> None:
    adapter = distillation(small(), teacher=tiny)
    assert checkpoint.sha256(adapter.teacher) != checkpoint.sha256(adapter.encoder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": Path("os:system")}, "adapter.teacher=os:system: no such folder or file; wanted a checkpoint, as"),
        ({"local_weight": 0.0, "global_weight": 0.0}, "are 0: nothing is to be learned"),
        (
            {"teacher": Path(), "local_weight": 0.0, "global_weight": 0.0, "contrastive_weight": 1.0},
            "with a text tower",
        ),
    ],
)
def test_settings_that_do_not_fit_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        distillation(small(), **settings)


def test_what_cannot_be_masked_is_told() -> None:
    tubes = small(tubes=[{"kernel": (k, 8, 8), "stride": (2, 8, 8)} for k in (1, 2)])
    with pytest.raises(UserError, match="needs an encoder that leaves tokens out"):
        distillation(tubes)
    with pytest.raises(UserError, match="reads whole clips; this task's are sequences of windows"):
        distillation(small(), Task(test=(), score=accuracy, views=Views(window=2.0)))
    for attention in ("frame", "factorized"):
        with pytest.raises(UserError, match=f"attention={attention} takes equally many in each; use adapter.mask=tube"):
            distillation(small(attention=attention))
        distillation(small(attention=attention), mask="tube")  # as told
    for family in ("videoprism", "longvivit"):  # 16 x 4 and 4 x 2 tokens
        with pytest.raises(
            UserError, match=r"adapter.mask_ratio=0.001 masks none of a clip's \d+ tokens, and adapter.ta"
        ):
            distillation(encoder(family), target="pixels", mask_ratio=0.001)
    framewise = distillation(small(attention="frame"), mask="tube")
    framewise.settings = replace(framewise.settings, mask="block")
    with pytest.raises(UserError, match=r"the mask leaves \d+ to \d+ tokens in a step"):
        framewise.val_score(Batch(EXAMPLES, film()))
    with pytest.raises(UserError, match="trains an encoder and answers nothing: evalkit adapt"):
        framewise.predict(EXAMPLES, None)
