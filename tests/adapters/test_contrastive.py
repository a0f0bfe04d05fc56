"""Contrastive training: its loss, its negatives, and what of the encoder it tunes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evalkit.api import Batch, Example, Task
from evalkit.encoders import videoprism
from evalkit.errors import UserError
from evalkit.metrics.classification import accuracy
from tests.given import CLIP, QUESTIONS, TASK, Plain, make_adapter, small

CAPTIONED = [
    Example(str(i), Path(str(i)), f"v{i}", text=f"a {color} ring grows")
    for i, color in enumerate(("red", "blue", "white"))
]
CAPTIONS = Task(test=CAPTIONED, score=accuracy)


def film(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def contrastive(vocabulary: Path, task: Task = TASK, **settings: Any) -> Any:
    return make_adapter("contrastive", small(vocabulary), task, **settings)


def test_the_contrastive_loss_is_the_symmetric_cross_entropy(vocabulary: Path) -> None:
    adapter = contrastive(vocabulary, task=Task(test=(), score=accuracy), temperature=0.1)
    examples = [Example(str(i), Path(str(i)), text=f"a {c} ring grows") for i, c in enumerate(("red", "blue", "white"))]
    video = torch.randint(0, 256, (3, 1, 4, 3, 32, 32), dtype=torch.uint8)
    found = adapter.training_step(Batch(examples, video), 0)
    v = adapter.encoder(CLIP.normalize(video[:, 0])).pooled
    t = adapter.encoder.encode_text([example.text for example in examples])
    likeness = torch.stack([nn.functional.cosine_similarity(one, t) for one in v]) / 0.1
    expected = -(likeness.log_softmax(1).diag().mean() + likeness.log_softmax(0).diag().mean()) / 2
    assert found.item() == pytest.approx(expected.item(), abs=1e-4)


def test_videos_with_equal_words_are_no_negatives_of_each_other(vocabulary: Path) -> None:
    adapter = contrastive(vocabulary, task=Task(test=(), score=accuracy))
    video = torch.randint(0, 256, (2, 1, 4, 3, 32, 32), dtype=torch.uint8)

    def loss(*words: str) -> float:
        examples = [Example(str(i), Path(str(i)), text=text) for i, text in enumerate(words)]
        return adapter.training_step(Batch(examples, video), 0).item()  # type: ignore[no-any-return]

    assert loss("a red ring", "a red ring") == 0 < loss("a red ring", "a blue ring")


def test_wrong_options_are_further_negatives_of_their_video(vocabulary: Path) -> None:
    torch.manual_seed(0)
    video = torch.randint(0, 256, (2, 1, 4, 3, 32, 32), dtype=torch.uint8)
    adapter = contrastive(vocabulary)
    plain = [replace(example, choices=(example.choices[example.target],), target=0) for example in QUESTIONS]
    assert adapter.training_step(Batch(QUESTIONS, video), 0) > adapter.training_step(Batch(plain, video), 0)


@pytest.mark.parametrize(
    ("tune", "trainable"),
    [("all", None), ("head", {"text"}), ("text", {"text"}), ("1", {"blocks", "norm"})],
)
def test_only_what_tune_names_is_trainable(vocabulary: Path, tune: str, trainable: set[str] | None) -> None:
    adapter = contrastive(vocabulary, tune=tune)
    names = [name for name, p in adapter.encoder.named_parameters() if p.requires_grad]
    if trainable is None:
        assert len(names) == len(list(adapter.encoder.parameters()))
    else:
        assert {name.split(".")[0] for name in names} == trainable
    if tune == "1":
        assert all(name.startswith(("blocks.1.", "norm.")) for name in names)
    if tune == "head":
        assert names == ["text.projection.weight"]


def tuned(encoder: nn.Module, tune: str) -> set[str]:
    """The names of what contrastive training changes of an encoder, without the numbers of layers and tubes."""
    make_adapter("contrastive", encoder, TASK, tune=tune)
    names = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    return {".".join(part for part in name.split(".")[:4] if not part.isdigit()) for name in names}


def test_adapters_and_temporal_attention_are_tuned_with_the_patch_alone(vocabulary: Path) -> None:
    tubes = [{"kernel": (k, 8, 8), "stride": (2, 8, 8)} for k in (1, 2)]
    many = small(vocabulary, adapter=4, tubes=tubes, image_path=True)
    assert tuned(many, "adapters") == {"patch.weight", "patch.bias", "blocks.adapter"}
    factorized = small(vocabulary, attention="factorized", adapter=4, image_path=True)
    inside = {"blocks.temporal.attention", "blocks.temporal.norm", "blocks.temporal.alpha"}
    assert tuned(factorized, "temporal") == {"patch.weight", "patch.bias"} | inside
    assert tuned(factorized, "adapters") == {"patch.weight", "patch.bias", "blocks.adapter"}


def test_lora_is_tuned_with_the_patch_alone(vocabulary: Path) -> None:
    encoder = small(vocabulary, lora=2)
    outside = {name for name in tuned(encoder, "lora") if not name.startswith("blocks.")}
    assert outside == {"patch.weight", "patch.bias"}
    inside = [name for name, p in encoder.named_parameters() if p.requires_grad and name.startswith("blocks.")]
    assert len(inside) == 2 * 4 * 2 and all(".lora_" in name for name in inside)


def test_the_last_layers_are_tuned_with_the_pooling_that_follows_them(vocabulary: Path) -> None:
    encoder = small(vocabulary, pooling="attention")
    assert {name.split(".")[0] for name in tuned(encoder, "2")} == {"blocks", "norm", "pool"}


@pytest.mark.parametrize(
    ("settings", "tune", "allowed"),
    [
        ({}, "3", "all, text, head"),
        ({}, "adapters", "all, text, head"),
        ({}, "0", "all, text, head"),
        ({"adapter": 4}, "lora", "all, text, head, adapters"),
        ({"attention": "factorized"}, "patch", "all, text, head, temporal"),
    ],
)
def test_a_wrong_tune_is_told_what_is_allowed(
    vocabulary: Path, settings: dict[str, Any], tune: str, allowed: str
) -> None:
    wanted = f"adapter.tune={tune}: wanted {allowed}, or a number of layers from 1 to 2"
    with pytest.raises(UserError, match=f"^{wanted}$"):
        tuned(small(vocabulary, **settings), tune)


def test_contrastive_answers_with_the_nearest_words(vocabulary: Path) -> None:
    adapter = contrastive(vocabulary)
    with torch.no_grad():
        text = adapter.encoder.encode_text([QUESTIONS[0].choices[1], QUESTIONS[1].choices[0]])
        assert [p.value for p in adapter.predict(QUESTIONS, text[:, None])] == [1, 0]


def test_an_encoder_that_leaves_no_tokens_out_is_trained_on_all_of_them() -> None:
    encoder = Plain()
    adapter = make_adapter("contrastive", encoder, CAPTIONS, temperature=0.1)
    loss = adapter.training_step(Batch(CAPTIONED, film(3)), 0)
    video, text = encoder(CLIP.normalize(film(3)[:, 0])).pooled, encoder.encode_text([e.text for e in CAPTIONED])
    likeness = nn.functional.cosine_similarity(video[:, None], text[None], dim=-1) / 0.1
    wanted = -(likeness.log_softmax(1).diag().mean() + likeness.log_softmax(0).diag().mean()) / 2
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    with pytest.raises(UserError, match="adapter.mask_ratio=0.5: this encoder leaves no tokens out"):
        make_adapter("contrastive", Plain(), CAPTIONS, mask_ratio=0.5)


@pytest.mark.parametrize(("name", "given"), [("contrastive", {}), ("retrieval", {"train": True})])
def test_videos_that_are_alone_in_their_batch_are_told(vocabulary: Path, name: str, given: dict[str, bool]) -> None:
    def made(**settings: Any) -> Any:
        return make_adapter(name, small(vocabulary), CAPTIONS, epochs=1, **given, **settings)

    made(batch_size=2).check_examples(2)
    with pytest.raises(UserError, match="^adapter.batch_size=1: a contrastive loss .* give 2 or more$"):
        made(batch_size=1).check_examples(9)
    with pytest.raises(UserError, match="^there is 1 training example: "):
        made(batch_size=2).check_examples(1)


def test_options_are_negatives_of_a_video_that_is_alone(vocabulary: Path) -> None:
    contrastive(vocabulary, Task(test=(), score=accuracy, train=QUESTIONS), batch_size=1).check_examples(1)


def test_a_text_tower_without_its_tokenizer_is_told_before_training(vocabulary: Path) -> None:
    encoder: Any = small(vocabulary)
    encoder.text.tokenizer = None
    with pytest.raises(UserError, match="no tokenizer"):
        make_adapter("contrastive", encoder, CAPTIONS)


def test_an_encoder_without_text_cannot_be_trained_contrastively() -> None:
    with pytest.raises(UserError, match="needs an encoder with a text tower"):
        make_adapter("contrastive", small(), TASK)


# --- tubes, VideoPrism, captions -------------------------------------------------------------------------------------


def prism(vocabulary: Path) -> Any:
    torch.manual_seed(0)
    text = {"vocabulary": 200, "depth": 1, "heads": 2, "hidden": 32, "tokens": 32}
    sizes: dict[str, Any] = {"patch": 8, "dim": 24, "heads": 2, "hidden": 48, "spatial_depth": 1, "temporal_depth": 1}
    return videoprism.encoder(CLIP, vocabulary, **sizes, pooler=48, text=text)


@pytest.mark.parametrize("mask", ["uniform", "tube"])
def test_videoprism_is_trained_on_what_the_mask_leaves(vocabulary: Path, mask: str) -> None:
    adapter = make_adapter("contrastive", prism(vocabulary), CAPTIONS, mask=mask, mask_ratio=0.5)
    seen: list[torch.Size] = []
    adapter.encoder.vision.spatial_layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    adapter.encoder.vision.temporal_layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    adapter.training_step(Batch(CAPTIONED, film(3)), 0).backward()
    assert seen[0] == (3 * 4, 8, 24)  # half of each frame's 16 tokens
    if mask == "tube":
        assert seen[1] == (3 * 8, 4, 24)  # eight places of each clip, in all frames
    assert adapter.encoder.head.pooling_attention_query.grad is not None


def test_a_tube_is_drawn_anew_in_each_step_by_the_seed(vocabulary: Path) -> None:
    torch.manual_seed(5)
    one, two = (make_adapter("contrastive", small(vocabulary), CAPTIONS, mask="tube", mask_ratio=0.5) for _ in "ab")
    tubes = [adapter._masked(film(3)[:, 0])["masked"] for adapter in (one, two)]
    assert tubes[0].shape == (3, 2, 4) and tubes[0].sum(2).eq(2).all()


def test_an_encoder_without_a_grid_has_no_tubes(vocabulary: Path) -> None:
    tubes = [{"kernel": (k, 8, 8), "stride": (2, 8, 8)} for k in (1, 2)]
    with pytest.raises(UserError, match="needs an encoder with one grid of tokens; this one has none: mask=uniform"):
        make_adapter("contrastive", small(vocabulary, tubes=tubes), CAPTIONS, mask="tube")


def test_captions_find_their_videos_among_those_of_their_kind(vocabulary: Path) -> None:
    """Ranks as adapter=retrieval gives them; the videos of another data set of a mixture are no rivals."""
    adapter = contrastive(vocabulary, CAPTIONS)
    with torch.no_grad():
        vectors = adapter.encoder.encode_text([example.text for example in CAPTIONED])
        predictions = adapter.predict(CAPTIONED, vectors[[0, 0, 2], None])  # the second video looks as the first
    ranks = [prediction.value for prediction in adapter.finalize(CAPTIONED, predictions)]
    assert ranks[0]["t2v"] == 1.5
    apart = [replace(example, kind=kind) for example, kind in zip(CAPTIONED, "aab", strict=True)]
    together = [prediction.value["t2v"] for prediction in adapter.finalize(apart, predictions)]
    assert together == [rank["t2v"] for rank in ranks]  # kinds of one data set are no data sets
    mixture = contrastive(vocabulary, replace(CAPTIONS, mixture={"a": 1.0, "b": 1.0}))
    assert [prediction.value["t2v"] for prediction in mixture.finalize(apart, predictions)][::2] == [1.5, 1]


def test_two_captions_of_a_video_are_no_negatives_of_each_other(vocabulary: Path) -> None:
    adapter = contrastive(vocabulary, CAPTIONS)
    pair = [replace(CAPTIONED[i], video=Path("v"), target=("v", i)) for i in range(2)]
    assert adapter.training_step(Batch(pair, film(2)), 0).item() == 0
