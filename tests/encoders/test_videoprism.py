"""VideoPrism against the official code's own numbers, against transformers, and against files that are wrong.

tests/fixtures/videoprism: models of random weights run through google-deepmind/videoprism (d481d91, jax 0.10.2, flax
0.12.8, matmul precision "highest"): NAME.npz as the official checkpoints are, NAME.io.npz what went in and came out.
`lvt` has the giant's text tower. ../shared/data/fixtures/videoprism holds more of the same kind.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.api import Clip, has_text
from evalkit.encoders import Spec, load_encoder, read_preset, save_encoder
from evalkit.encoders.videoprism.model import VideoPrism
from evalkit.encoders.videoprism.text import canonical
from evalkit.errors import UserError
from evalkit.weights.presets import card, presets
from tests.given import DATA, real

OWN = Path(__file__).parents[1] / "fixtures" / "videoprism"
SHARED = DATA / "fixtures" / "videoprism"
PRESETS = sorted(name for name in presets() if name.startswith("videoprism_"))
TOLERANCE = 1e-5

Arrays = dict[str, NDArray[Any]]


def load(path: Path, **settings: Any) -> VideoPrism:
    encoder = load_encoder(str(path), **settings)
    assert isinstance(encoder, VideoPrism)
    return encoder


def read(path: Path) -> Arrays:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def write(path: Path, arrays: Arrays) -> Path:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return path


def video(array: NDArray[Any]) -> Tensor:
    """Official video (B, T, H, W, C) as our encoders take it."""
    return torch.from_numpy(array).permute(0, 1, 4, 2, 3)


def distance(found: Tensor | None, wanted: NDArray[Any] | Tensor) -> float:
    """Largest absolute difference; tokens may be laid out (B, T, S, D) and (B, T S, D)."""
    assert found is not None
    return float((found.flatten() - torch.as_tensor(wanted).flatten()).abs().max())


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_encoder(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the official numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["native", "more", "fewer"])
def test_tokens_are_the_official_ones_at_every_length_and_size(shape: str) -> None:
    encoder, io = load(OWN / "encoder.npz"), read(OWN / "encoder.io.npz")
    assert encoder.clip == Clip(frames=3, size=8, resize="squash")
    assert (encoder.dim, encoder.patch, has_text(encoder)) == (8, 4, False)
    found = encoder(video(io[f"in/{shape}"]), layers=2)
    assert distance(found.tokens, io[f"out/{shape}"]) <= TOLERANCE
    assert distance(encoder.vision.layernorm1(found.layers[0]), io[f"out/{shape}_spatial"]) <= TOLERANCE
    assert torch.equal(found.pooled, found.tokens.mean((1, 2)))


def test_video_frames_and_text_of_the_giants_kind_are_embedded_as_officially() -> None:
    encoder, io = load(OWN / "lvt.npz"), read(OWN / "lvt.io.npz")
    found = encoder(video(io["in/video"]))
    assert distance(found.tokens, io["out/tokens"]) <= TOLERANCE
    assert distance(found.pooled, io["out/video"]) <= TOLERANCE
    assert distance(found.frames, io["out/frames"]) <= TOLERANCE
    text = encoder.encode_token_ids(torch.from_numpy(io["in/ids"]), torch.from_numpy(io["in/paddings"]))
    assert distance(text, io["out/text"]) <= TOLERANCE


def test_a_classifier_pools_and_classifies_as_officially() -> None:
    encoder, io = load(OWN / "classifier.npz"), read(OWN / "classifier.io.npz")
    found = encoder(video(io["in/video"]))
    assert distance(found.tokens, io["out/tokens"]) <= TOLERANCE
    assert distance(found.pooled, io["out/pooled"]) <= TOLERANCE
    assert distance(encoder.classify(found.pooled), io["out/logits"]) <= TOLERANCE


@real
@pytest.mark.parametrize("file", sorted(SHARED.glob("*.params.npz")), ids=lambda file: file.name.split(".")[0])
def test_every_shared_fixture_is_reproduced(file: Path) -> None:
    name = file.name.split(".")[0]
    io = read(SHARED / f"{name}.io.npz")
    encoder = load(file, tokenizer=SHARED / "test_spm.model")
    found = encoder(video(io["in/video"]), layers=len(encoder.vision.temporal_layers) + 1)
    outputs = {
        "embeddings": found.tokens,
        "spatiotemporal_features": found.tokens,
        "spatial_features": encoder.vision.layernorm1(found.layers[0]),
    }
    if encoder.classifier is not None:
        outputs |= {"global_embeddings": found.pooled, "logits": encoder.classify(found.pooled)}
    if encoder.text is not None:
        ids, paddings = torch.from_numpy(io["in/text_token_ids"]), torch.from_numpy(io["in/text_paddings"])
        assert found.frames is not None
        outputs |= {"video_embeddings": found.pooled, "frame_embeddings": found.frames}
        outputs["text_embeddings"] = encoder.encode_token_ids(ids, paddings)
        about = json.loads((SHARED / "fixtures.json").read_text())["fixtures"][name]
        assert [canonical(text) for text in about["texts"]] == about["canonical"]
        assert distance(encoder.encode_text(about["texts"]), io["out/text_embeddings"]) <= TOLERANCE
    wanted = {key.removeprefix("out/") for key in io if key.startswith("out/")}
    # Not offered: padded frames, and embeddings before they are made of length 1.
    assert {key for key in wanted if "padded" not in key and "unnorm" not in key} <= outputs.keys()
    for key in wanted & outputs.keys():
        assert distance(outputs[key], io[f"out/{key}"]) <= TOLERANCE, key


# --- video -----------------------------------------------------------------------------------------------------------


def test_the_last_layers_come_from_the_same_pass_whatever_their_number() -> None:
    encoder = load(OWN / "encoder.npz")  # 2 spatial layers and 1 temporal
    clips = torch.rand(2, 4, 3, 12, 8)
    one, three = encoder(clips), encoder(clips, layers=3)
    assert one.layers == () and len(three.layers) == 3
    assert torch.equal(three.layers[-1], three.tokens) and torch.equal(one.tokens, three.tokens)
    assert {layer.shape for layer in three.layers} == {(2, 4, 6, 8)}
    single = encoder(clips[:, 1:2], layers=3)  # spatial layers see one frame alone
    assert distance(single.layers[0], three.layers[0][:, 1:2]) <= TOLERANCE
    assert torch.equal(encoder(clips, layers=2).layers[0], three.layers[1])
    for layers in (0, 4):
        with pytest.raises(ValueError, match="has 1 to 3"):
            encoder(clips, layers=layers)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 3, 8, 8, 3), (1, 0, 3, 8, 8), (1, 3, 3, 10, 8), (1, 3, 3, 0, 8)])
def test_shapes_that_do_not_fit_are_told_with_what_is_wanted(shape: tuple[int, ...]) -> None:
    wanted = re.escape(f"video of shape {shape}: wanted (B, T, 3, H, W) with T at least 1, H and W multiples of 4")
    with pytest.raises(ValueError, match=wanted):
        load(OWN / "encoder.npz")(torch.rand(shape))


def test_attention_by_rows_is_attention_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, clips = load(OWN / "lvt.npz"), torch.rand(1, 3, 3, 8, 8)
    at_once = encoder(clips)
    monkeypatch.setattr("evalkit.encoders.videoprism.model._ROWS", 5)
    by_rows = encoder(clips)
    assert distance(by_rows.pooled, at_once.pooled) <= 1e-6 and distance(by_rows.tokens, at_once.tokens) <= 1e-5


# --- text ------------------------------------------------------------------------------------------------------------


def test_texts_are_cut_padded_and_embedded_as_their_ids(vocabulary: Path) -> None:
    encoder = load(OWN / "lvt.npz", tokenizer=vocabulary)
    texts = ["A red RING, moves left!", "", "blue " * 100]
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(vocabulary))
    ids, paddings = torch.zeros(3, 64, dtype=torch.long), torch.ones(3, 64)
    for i, text in enumerate(["a red ring moves left.", ".", " ".join(["blue"] * 100) + "."]):
        row = pieces.encode(text, add_bos=True)[:64]
        ids[i, : len(row)], paddings[i, : len(row)] = torch.tensor(row), 0
    found = encoder.encode_text(texts)
    assert distance(found, encoder.encode_token_ids(ids, paddings)) <= 1e-6
    assert distance(encoder.encode_text(texts[:1]), found[:1]) <= 1e-6  # padding does not matter
    assert torch.allclose(found.norm(dim=1), torch.ones(3))


def test_only_what_stands_before_a_token_is_seen(vocabulary: Path) -> None:
    encoder = load(OWN / "lvt.npz")
    assert encoder.text is not None
    states: list[Tensor] = []
    encoder.text.model.layernorm.register_forward_hook(lambda module, inputs, output: states.append(output))
    for last in (3, 9):
        encoder.encode_token_ids(torch.tensor([[5, 6, last]]), torch.zeros(1, 3))
    assert torch.equal(states[0][:, :2], states[1][:, :2]) and not torch.allclose(states[0][:, 2:], states[1][:, 2:])


def test_without_its_tokenizer_the_text_tower_says_what_to_give(tmp_path: Path, vocabulary: Path) -> None:
    encoder = load(OWN / "lvt.npz")
    with pytest.raises(UserError, match=r"spiece\.model.*encoder\.tokenizer="):
        encoder.encode_text(["a"])
    (tmp_path / "lvt.npz").write_bytes((OWN / "lvt.npz").read_bytes())
    (tmp_path / "spiece.model").write_bytes(vocabulary.read_bytes())  # beside the weights
    found = load(tmp_path).encode_text(["a red ring"])
    assert torch.equal(found, load(OWN / "lvt.npz", tokenizer=vocabulary).encode_text(["a red ring"]))
    (tmp_path / "spiece.model").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"cannot read the tokenizer .*spiece\.model"):
        load(tmp_path).encode_text(["a"])


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, vocabulary: Path) -> None:
    arrays = read(OWN / "lvt.npz")
    arrays["params/text_encoder/token_emb/emb_var"] = arrays["params/text_encoder/token_emb/emb_var"][:20]
    encoder = load(write(tmp_path / "small.npz", arrays), tokenizer=vocabulary)
    with pytest.raises(UserError, match="knows 20 pieces: it is another model's tokenizer"):
        encoder.encode_text(["a red ring moves left"])


def test_ids_of_other_shapes_than_their_paddings_are_told() -> None:
    encoder = load(OWN / "lvt.npz")
    for ids, paddings in [((3,), (3,)), ((2, 3), (2, 4)), ((1, 65), (1, 65))]:
        with pytest.raises(ValueError, match="L at most 64"):
            encoder.encode_token_ids(torch.zeros(ids, dtype=torch.long), torch.zeros(paddings))
    with pytest.raises(UserError, match="no classifier"):
        encoder.classify(torch.zeros(1, 8))


# --- presets ---------------------------------------------------------------------------------------------------------


def test_there_are_five_presets() -> None:
    sizes = ["base", "giant", "large", "lvt_base", "lvt_large"]
    assert [f"videoprism_{size}" for size in sizes] == PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_card_counts_its_weights(name: str) -> None:
    about, spec = card(presets()[name]), read_preset(name)
    with torch.device("meta"):
        module = spec.build()
    assert about.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert about.text == has_text(module) == ("lvt" in name)
    frames = "f16" if spec.clip.frames == 16 else "f8"
    hub = f"google/{name.replace('_', '-')}-{frames}r{spec.clip.size}"
    assert about.hub == ("" if name == "videoprism_giant" else hub)
    published = {"base": 114e6, "large": 354e6, "lvt_base": 248e6, "lvt_large": 580e6}
    if (size := name.removeprefix("videoprism_")) in published:
        assert about.parameters == pytest.approx(published[size], rel=0.01)


def test_a_random_encoder_of_the_giants_kind_is_saved_and_loaded(tmp_path: Path, vocabulary: Path) -> None:
    text = {"vocabulary": 200, "depth": 2, "heads": 2, "hidden": 12, "norm": "primer_hybrid"}
    shape = {"patch": 4, "dim": 8, "heads": 2, "hidden": 12, "spatial_depth": 1, "temporal_depth": 1}
    heads = {"auxiliary_depth": 1, "pooler": 32, "text": text}
    spec = Spec("videoprism", Clip(frames=2, size=8, resize="squash"), shape | heads, vocabulary)
    module = spec.build()
    assert all(not weight.any() for name, weight in module.named_parameters() if "norm.weight" in name)  # gain is 1 + w
    save_encoder(module, spec, tmp_path)
    first, second = load(tmp_path), load(tmp_path)
    assert torch.equal(first.encode_text(["a red ring"]), second.encode_text(["a red ring"]))
    assert first(torch.rand(1, 2, 3, 8, 8)).pooled.isfinite().all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"patch": 5}, "not a multiple of the patch"),
        ({"heads": 3}, "multiples of heads=3"),
        ({"classes": 4}, "want a pooler"),
    ],
)
def test_settings_that_make_no_model_are_told(change: dict[str, Any], told: str) -> None:
    spec = Spec("videoprism", Clip(frames=2, size=8), {"patch": 4, "dim": 8, "heads": 2, "hidden": 8} | change)
    with pytest.raises(UserError, match=told):
        spec.build()
