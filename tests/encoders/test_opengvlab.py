"""VideoMAE v2, UMT and InternVideo2 from files in their released layouts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from sentencepiece import SentencePieceProcessor
from torch import Tensor

from evalkit.api import has_text
from evalkit.encoders import opengvlab, vjepa2
from evalkit.encoders.opengvlab.model import resized
from evalkit.errors import UserError
from tests.encoders import opengvlab_files as files
from tests.encoders.tokenizers import clip_tokenizer
from tests.saved import load, refusal, same, takes_batches_of_any_size_and_gives_the_same_every_time

HEADS = files.HEADS


@pytest.fixture(autouse=True)
def seeded() -> None:
    files.DRAWN.manual_seed(7)


def film(frames: int, size: int = 224, batch: int = 1) -> Tensor:
    return torch.randn(batch, frames, 3, size, size, generator=files.DRAWN)


def meanings(*, classes: bool = False) -> dict[str, Mapping[str, Tensor]]:
    """A released file of each kind without text, by its name."""
    tuned = files.classifier(files.DIM) if classes else {}
    pooled = files.classifier(files.POOLED) if classes else {}
    return {
        "videomae_v2": files.masked(2, normed=not classes) | tuned,
        "umt": files.masked(1, normed=not classes) | tuned,
        "internvideo2": files.internvideo2() | pooled,
    }


FRAMES = {"videomae_v2": 16, "umt": 8, "internvideo2": files.TIMES}


@pytest.mark.parametrize("kind", sorted(FRAMES))
def test_a_released_file_gives_what_the_definition_gives(tmp_path: Path, kind: str) -> None:
    weights = dict(meanings()[kind])
    # As a masked autoencoder has it, or an encoder that was distilled, with what is not run.
    released = weights if kind == "internvideo2" else {f"encoder.{name}": value for name, value in weights.items()}
    released |= {"clip_decoder.0.head.weight": files.drawn(2, 2), "mask_token": files.drawn(1, 1, 4)}
    released |= {"decoder.blocks.0.attn.q_bias": files.drawn(4), "clip_pos_embed": files.drawn(1, 3, files.DIM)}
    encoder = load(files.save(tmp_path / "released.pth", released), heads=HEADS)
    clip = encoder.clip
    assert (encoder.kind, clip.frames, clip.size, clip.resize) == (kind, FRAMES[kind], 224, "crop")
    assert clip.mean == (0.485, 0.456, 0.406) and not has_text(encoder)
    video = film(clip.frames)
    found, wanted = encoder(video, layers=2), files.states(video, weights)
    if kind == "internvideo2":
        assert same(found.pooled, files.pooled(wanted, weights), 1e-5)
        wanted = wanted[:, 1:]
    else:
        wanted = files.normed(wanted, weights, "norm", 1e-6)
        assert same(found.pooled, wanted.mean(1), 1e-5)
    assert same(found.tokens.flatten(1, 2), wanted, 1e-5) and found.tokens.shape[1] == encoder.grid[0]
    assert torch.equal(found.layers[1], found.tokens) and len(found.layers) == 2


@pytest.mark.parametrize("kind", sorted(FRAMES))
def test_a_classifier_gives_what_the_definition_gives(tmp_path: Path, kind: str) -> None:
    weights = dict(meanings(classes=True)[kind])
    encoder = load(files.save(tmp_path / "tuned.pth", weights, "model"), heads=HEADS)
    video = film(4, 112)
    head = encoder.own_head()
    read = encoder(video).pooled
    epsilon = 1e-5 if kind == "internvideo2" else 1e-6
    wanted = files.through(files.normed(read, weights, "fc_norm", epsilon), weights, "head")
    assert same(head.module(read), wanted, 1e-5) and head.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert encoder.norm is None and not any(name.startswith(("head", "fc_norm")) for name in encoder.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.bias": None}, "missing head.bias"),
        ({"head.bias": torch.zeros(4)}, "head.bias is (4,), wanted (3,)"),
        ({"head.weight": torch.full((3, 48), float("nan"))}, "head.weight"),
        ({"head.weight": torch.zeros(3)}, "head.weight is (3,), wanted (classes, width)"),
        ({"head.extra": torch.zeros(3)}, "unexpected head.extra"),
    ],
)
def test_a_classifier_that_is_not_whole_is_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    weights = dict(meanings(classes=True)["umt"]) | change
    encoder = load(
        files.save(tmp_path / "tuned.pth", {k: v for k, v in weights.items() if v is not None}, "model"), heads=HEADS
    )
    with pytest.raises(UserError) as told:
        encoder.own_head()
    assert message in str(told.value) and "\n" not in str(told.value)


def test_stored_positions_of_umt_say_frames_and_size(tmp_path: Path) -> None:
    weights = files.masked(1, normed=False) | {"pos_embed": files.drawn(1, 2 * 24**2, files.DIM)}
    encoder = load(files.save(tmp_path / "res384.pth", weights, "model"), heads=HEADS)
    assert (encoder.clip.frames, encoder.clip.size) == (2, 384)
    video = film(2, 384)
    assert same(encoder(video).tokens.flatten(1, 2), files.states(video, weights), 1e-5)


def test_positions_of_other_frames_and_sizes_are_interpolated_in_time_and_in_space() -> None:
    table = files.drawn(1, 4 * 6 * 6, 5)
    assert resized(table, (4, 6, 6), (4, 6, 6)) is table
    longer = resized(table, (4, 6, 6), (8, 6, 6)).reshape(8, 36, 5).numpy()
    places = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    rows = table.reshape(4, 36 * 5).numpy()
    wanted = np.stack([np.interp(places, np.arange(4), rows[:, i]) for i in range(rows.shape[1])], 1)
    assert np.allclose(longer.reshape(8, -1), wanted, atol=1e-6)
    smaller = resized(table, (4, 6, 6), (2, 3, 3)).reshape(2, 3, 3, 5)
    maps = table.reshape(4, 6, 6, 5).permute(0, 3, 1, 2)
    cut = torch.nn.functional.interpolate(maps, (3, 3), mode="bicubic").permute(0, 2, 3, 1)
    assert same(smaller, (cut[0::2] + cut[1::2]) / 2, 1e-6)


def test_clips_of_a_batch_do_not_depend_on_each_other(tmp_path: Path) -> None:
    encoder = load(files.save(tmp_path / "x.bin", files.internvideo2(), ""), heads=HEADS)
    takes_batches_of_any_size_and_gives_the_same_every_time(encoder, film(2, 28, 3))


# --- text ------------------------------------------------------------------------------------------------------------

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "ring", "grow", "##s", "red", "ball", "."]


def vocabulary_of_bert(folder: Path) -> Path:
    file = folder / "vocab.txt"
    file.write_text("\n".join(WORDS) + "\n")
    return file


def bert_gives(ids: list[int], weights: files.Weights, layers: int) -> Tensor:
    """The first token's state after BERT's first layers, by transformers, projected."""
    config = transformers.BertConfig(
        vocab_size=12, hidden_size=128, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40,
    )  # fmt: skip
    model: Any = transformers.BertModel(config, add_pooling_layer=False)
    model.eval()
    named = files.renamed(weights, "text_encoder.bert.")
    model.load_state_dict({name: named[name] for name in model.state_dict()})
    with torch.no_grad():
        state = model(input_ids=torch.tensor([ids])).last_hidden_state[:, 0]
    return files.through(state, weights, "text_proj")[0]


@pytest.mark.parametrize("kind", ["umt", "internvideo2"])
def test_a_second_stage_embeds_videos_and_texts_as_the_definition_does(tmp_path: Path, kind: str) -> None:
    start = "vision_encoder."
    if kind == "umt":
        vision = files.masked(1, f"{start}encoder.") | files.norm(f"{start}pool_norm", files.DIM)
        width, frames = files.DIM, 4  # the first of the table's 8 times
    else:
        vision = files.internvideo2(start) | {f"{start}img_pos_embed": files.drawn(1, 257, files.DIM)}
        width, frames = files.POOLED, files.TIMES
    weights = vision | files.bert(2, 1) | files.linear("vision_proj", width, 20)
    weights |= {"temp": files.drawn(), "clip_teacher.proj": files.drawn(2, 2)}
    path = files.save(tmp_path / "second.pth", weights, "model")
    encoder = load(path, heads=HEADS, tokenizer=vocabulary_of_bert(tmp_path))
    assert (encoder.clip.frames, encoder.clip.resize, encoder.clip.interpolation) == (frames, "squash", "bicubic")
    assert has_text(encoder) and encoder.pooled_dim == 20
    video = film(frames, 224)
    own = files.renamed(vision, f"{start}encoder." if kind == "umt" else start)
    x, found = files.states(video, own), encoder(video)
    if kind == "umt":
        tokens = files.normed(x, own, "norm", 1e-6).reshape(1, 4, -1, files.DIM)
        each = files.through(files.normed(tokens.mean(2), weights, f"{start}pool_norm", 1e-6), weights, "vision_proj")
        assert same(found.frames, each, 1e-5)
        assert same(found.pooled, (each / each.norm(dim=-1, keepdim=True)).mean(1), 1e-5)
    else:
        assert same(found.pooled, files.through(files.pooled(x, own), weights, "vision_proj"), 1e-5)
    texts = encoder.encode_text(["A red ball.", "rings"])
    wanted = [bert_gives([2, 5, 9, 10, 3], weights, 2), bert_gives([2, 6, 8, 3], weights, 2)]
    assert same(texts, torch.stack(wanted), 1e-5)
    bare = load(path, heads=HEADS)
    with pytest.raises(UserError, match=r"encoder.tokenizer= BERT's vocabulary \(vocab.txt of bert-base-uncased\)"):
        bare.encode_text(["a"])
    (tmp_path / "more.txt").write_text("\n".join([*WORDS, "blue"]))
    with pytest.raises(UserError, match="13 word pieces, and the text tower knows 12: it is another model's"):
        load(path, heads=HEADS, tokenizer=tmp_path / "more.txt").encode_text(["a"])


def test_the_small_clip_is_joined_from_its_three_files(tmp_path: Path) -> None:
    whole, changed = files.internvideo2(), files.pooling("vision_encoder.")
    changed |= files.norm("vision_align.0", files.POOLED) | files.linear("vision_align.1", files.POOLED, 20)
    changed["temp"] = files.drawn()
    tower = files.mobileclip()
    main = files.save(tmp_path / "pytorch_model.bin", changed)
    vision = files.save(tmp_path / "S14_dist.pth", whole | {"clip_decoder.0.head.bias": files.drawn(3)})
    text = files.save(tmp_path / "mobileclip_blt.pt", tower, "")
    clip_tokenizer(tmp_path)
    encoder = load(main, heads=HEADS, parts=[vision, text], tokenizer=tmp_path)
    own = whole | files.renamed(changed, "vision_encoder.")
    assert encoder.clip.frames == 8 and encoder.clip.resize == "squash" and encoder.pooled_dim == 20
    video = film(files.TIMES)
    wanted = files.normed(files.pooled(files.states(video, own), own), changed, "vision_align.0", 1e-5)
    assert same(encoder(video).pooled, files.through(wanted, changed, "vision_align.1"), 1e-5)
    # letters are tokens here: a is 27 at a word's end, b 28; the text starts with 54 and ends with 55
    found = encoder.encode_text(["a", "b a"])
    assert same(found[0], files.mobileclip_gives([54, 27, 55], tower), 1e-5)
    assert same(found[1], files.mobileclip_gives([54, 28, 27, 55], tower), 1e-5)
    silent = load(main, heads=HEADS, parts=vision)
    assert not has_text(silent) and silent.pooled_dim == files.POOLED
    assert "give encoder.parts=[VISION] or [VISION,TEXT] with its size's distilled file" in refusal(main, heads=HEADS)
    assert "has no effect on" in refusal(vision, heads=HEADS, parts=[text])
    assert refusal(main, parts=[tmp_path / "none.pt"]) == f"encoder.parts: no such file: {tmp_path / 'none.pt'}"


def test_the_large_clip_reads_llama_with_what_lora_adds(tmp_path: Path, vocabulary: Path) -> None:
    pieces = SentencePieceProcessor(model_file=str(vocabulary))
    stage2, changed = files.internvideo2("vision_encoder.") | files.bert(1, 1), files.pooling("vision_encoder.")
    stage2 |= files.linear("vision_proj", files.POOLED, 20)
    changed |= {
        "temp": files.drawn(),
        "text_encoder.transformer.layers.0.self_attn.rotary_emb.inv_freq": files.drawn(16),
    }
    tower = files.llama(words=pieces.get_piece_size())
    main = files.save(tmp_path / "1B_clip.pth", changed)
    parts = [files.save(tmp_path / "stage2.pt", stage2), files.save(tmp_path / "internvl_c.pth", tower)]
    encoder = load(main, heads=HEADS, parts=parts, tokenizer=vocabulary)
    assert encoder.pooled_dim == files.POOLED and encoder.clip.frames == 8
    own = files.renamed(stage2, "vision_encoder.") | files.renamed(changed, "vision_encoder.")
    video = film(files.TIMES)
    assert same(encoder(video).pooled, files.pooled(files.states(video, own), own), 1e-5)
    config = transformers.LlamaConfig(
        vocab_size=pieces.get_piece_size(), hidden_size=32, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=1, num_key_value_heads=1, rms_norm_eps=1e-6,
    )  # fmt: skip
    model: Any = transformers.LlamaModel(config)
    model.eval()
    merged = files.renamed(tower, "transformer.")
    for layer in range(2):
        for letter in "qv":
            name = f"layers.{layer}.self_attn.{letter}_proj"
            low, high = merged[f"{name}.lora_A.default.weight"], merged[f"{name}.lora_B.default.weight"]
            merged[f"{name}.weight"] = merged[f"{name}.weight"] + 2 * high @ low
    model.load_state_dict({name: merged[name] for name in model.state_dict()})
    for text, found in zip(["a red ball", "a"], encoder.encode_text(["a red ball", "a"]), strict=True):
        ids = [pieces.bos_id(), *pieces.encode(f"summarize:{text}"), pieces.eos_id()]
        with torch.no_grad():
            wanted = model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1] @ tower["text_projection"]
        assert same(found, wanted, 1e-5)


# --- which file is whose ---------------------------------------------------------------------------------------------


def vjepa(path: Path) -> Path:
    """A V-JEPA 2 with random weights, by the authors' names."""
    weights = {"patch_embed.proj.weight": files.drawn(24, 3, 2, 8, 8), "patch_embed.proj.bias": files.drawn(24)}
    for layer in range(2):
        name = f"blocks.{layer}"
        weights |= files.norm(f"{name}.norm1", 24) | files.norm(f"{name}.norm2", 24)
        weights |= files.linear(f"{name}.attn.qkv", 24, 72) | files.linear(f"{name}.attn.proj", 24, 24)
        weights |= files.linear(f"{name}.mlp.fc1", 24, 48) | files.linear(f"{name}.mlp.fc2", 48, 24)
    torch.save({"encoder": weights | files.norm("norm", 24)}, path)
    return path


def test_no_file_loads_as_a_model_of_another_family(tmp_path: Path) -> None:
    from evalkit.api import Loading

    given = Loading(heads=HEADS, positions="rotary")
    for kind, weights in meanings().items():
        path = files.save(tmp_path / f"{kind}.pth", weights)
        assert isinstance(load(path, heads=HEADS), opengvlab.model.VideoTransformer)
        with pytest.raises(UserError, match="do not fit the model|does not say which model it belongs to"):
            vjepa2.pretrained(path, given)
    path = vjepa(tmp_path / "vjepa2.pth")
    assert isinstance(load(path, heads=2, positions="rotary"), vjepa2.model.VJEPA2)
    with pytest.raises(UserError, match="holds no VideoMAE v2, UMT or InternVideo2: wanted patch_embed"):
        opengvlab.pretrained(path, given)
    still = dict(meanings()["umt"]) | {"patch_embed.proj.weight": files.drawn(files.DIM, 3, 16, 16)}
    assert not opengvlab.recognizes(dict(still))  # BEiT's layout


@pytest.mark.parametrize("kind", sorted(FRAMES))
def test_what_does_not_fit_is_told(tmp_path: Path, kind: str) -> None:
    weights, path = dict(meanings()[kind]), tmp_path / "x.pth"
    files.save(path, weights)
    assert "48 wide and 2 layers deep, no published size, and does not say how many attention heads" in refusal(path)
    assert "encoder.heads=5" in refusal(path, heads=5)
    assert "encoder.model=" not in refusal(path, heads=HEADS, positions="rotary")
    name = "blocks.1.mlp.fc2.weight"
    for changed, words in (
        ({key: value for key, value in weights.items() if key != name}, f"missing {name}"),
        (weights | {"blocks.1.extra.weight": files.drawn(3)}, "unexpected blocks.1.extra.weight"),
        (weights | {name: files.drawn(5, 7)}, f"{name} is (5, 7), wanted (48, 64)"),
        (weights | {name: weights[name] * torch.nan}, "NaN"),
    ):
        files.save(path, changed)
        assert words in refusal(path, heads=HEADS)


def test_a_file_without_its_last_layers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and shapes are those of a whole one that is less deep."""
    monkeypatch.setattr(opengvlab.released, "HEADS", {(files.DIM, 2): HEADS})
    vision = files.masked(1, "vision_encoder.") | files.norm("vision_encoder.pool_norm", files.DIM)
    weights = vision | files.bert(2, 1) | files.linear("vision_proj", files.DIM, 20)
    path = files.save(tmp_path / "whole.pth", weights)
    monkeypatch.setattr(opengvlab.released, "TEXT_DEPTHS", {("bert", 128): 2})
    load(path)
    short = {name: value for name, value in weights.items() if not name.startswith("vision_encoder.blocks.1.")}
    told = refusal(files.save(tmp_path / "short.pth", short))
    assert "48 wide and 1 layers deep, no published size (2 layers are: get the file again if it lacks some)" in told
    monkeypatch.setattr(opengvlab.released, "TEXT_DEPTHS", {("bert", 128): 3})
    told = refusal(path)
    assert (
        "its text tower is 2 layers deep, and those of its width that are published are 3: get the file again" in told
    )
    load(path, heads=HEADS)


def test_positions_of_no_known_square_are_told(tmp_path: Path) -> None:
    weights = files.internvideo2() | {"pos_embed": files.drawn(1, 30, files.DIM)}
    path = files.save(tmp_path / "x.pth", weights)
    assert "has 29 positions, which cover no square of 224, 336, 384, 448 pixels in patches of 14" in refusal(
        path, heads=HEADS
    )


def test_it_is_found_by_its_file_whatever_lies_beside(tmp_path: Path) -> None:
    path = files.save(tmp_path / "stage1.pt", {f"module.{name}": v.half() for name, v in files.internvideo2().items()})
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "modeling.Code"}, "model_type": ""}')
    encoder: Any = load(path, heads=HEADS)
    assert encoder.kind == "internvideo2" and encoder.pos_embed.dtype == torch.float32


@pytest.mark.parametrize("kind", sorted(FRAMES))
def test_a_folder_of_the_hub_gives_what_the_definition_gives_and_its_code_is_not_run(tmp_path: Path, kind: str) -> None:
    weights = dict(meanings(classes=kind == "videomae_v2")[kind])
    wrapped = {f"model.{name}": value for name, value in weights.items() if not name.startswith("head.")}
    save_file(wrapped, tmp_path / "model.safetensors")
    config = {
        "model_type": "VideoMAEv2_Base",
        "auto_map": {"AutoModel": "modeling_videomaev2.VideoMAEv2", "AutoConfig": "modeling_config.VideoMAEv2Config"},
        "model_config": {"embed_dim": files.DIM, "num_classes": 0},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modeling_videomaev2.py").write_text("raise SystemExit('this code ran')\n")
    video = film(FRAMES[kind])
    wanted = files.states(video, weights)
    if kind == "internvideo2":
        wanted = wanted[:, 1:]
    elif "norm.weight" in weights:
        wanted = files.normed(wanted, weights, "norm", 1e-6)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        encoder = load(path, heads=HEADS)
        assert encoder.kind == kind and not hasattr(encoder, "own_head")
        assert same(encoder(video).tokens.flatten(1, 2), wanted, 1e-5)


def test_a_folder_of_no_known_kind_is_refused_as_before(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "videomae2", "auto_map": {}}))
    save_file({"model.blocks.0.attn.qkv.weight": files.drawn(6, 2)}, tmp_path / "model.safetensors")
    assert "no encoder family reads model_type 'videomae2'. Did you mean 'videomae'?" in refusal(tmp_path)
    for kind in (["videomae"], {"a": 1}, 3):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        assert f"no encoder family reads model_type {str(kind)!r}." in refusal(tmp_path)
