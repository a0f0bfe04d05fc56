"""V-JEPA 2's predictor gives the tokens of a later time step, and its released classifiers read them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from evalkit import plugins
from evalkit.api import Example, Views
from tests.adapters.test_attentive_classifier import TASK
from tests.adapters.test_attentive_classifier_files import linear, norm, plain_block, write
from tests.encoders.test_vjepa2 import SETTINGS, by_their_names, model
from tests.given import make_adapter
from tests.saved import load, refusal, same, save

PREDICTOR: dict[str, Any] = {"pred_hidden_size": 96, "pred_num_attention_heads": 12, "pred_num_hidden_layers": 2}
TIMES, ROWS = SETTINGS["frames_per_clip"] // 2, 4  # of the grid of tokens
AHEAD = 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "model", model(**PREDICTOR), {})


def film(frames: int = SETTINGS["frames_per_clip"], size: int = SETTINGS["crop_size"]) -> Tensor:
    return torch.randn(2, frames, 3, size, size, generator=torch.Generator().manual_seed(3))


def test_a_folder_gives_what_transformers_gives(folder: Path) -> None:
    encoder = load(folder, ahead=AHEAD)
    whole: Any = transformers.VJEPA2Model.from_pretrained(folder, dtype=torch.float32)
    places = torch.arange((TIMES + AHEAD + 1) * ROWS**2).expand(2, -1)
    seen, later = places[:, : TIMES * ROWS**2], places[:, -(ROWS**2) :]
    with torch.no_grad():
        encoded = whole.eval().encoder(film()).last_hidden_state
        predicted = whole.predictor(encoded, context_mask=[seen], target_mask=[later]).last_hidden_state
    tokens = encoder(film()).tokens
    assert tokens.shape == (2, TIMES + 1, ROWS**2, 24)
    assert same(tokens[:, :-1].flatten(1, 2), encoded)
    assert same(tokens[:, -1], predicted, 1e-5)
    assert same(load(folder)(film()).tokens, tokens[:, :-1])
    sooner = load(folder, ahead=1)(film()).tokens
    assert not same(sooner[:, -1], tokens[:, -1], 1e-3)


def of_the_authors(folder: Path) -> dict[str, Tensor]:
    """The predictor of a saved model by the authors' names."""
    state = transformers.VJEPA2Model.from_pretrained(folder).predictor.state_dict()
    masks = state.pop("embeddings.mask_tokens")
    found = {f"mask_tokens.{number}": mask for number, mask in enumerate(masks)}
    for name, value in state.items():
        for ours, theirs in [
            ("embeddings.predictor_embeddings", "predictor_embed"),
            ("layernorm", "predictor_norm"),
            ("layer.", "predictor_blocks."),
            (".attention.", ".attn."),
        ]:
            name = name.replace(ours, theirs)
        if ".query." in name:
            start, end = name.split(".attn.query.")
            inner = start.replace("predictor_blocks.", "layer.")
            parts = [state[f"{inner}.attention.{part}.{end}"] for part in ("query", "key", "value")]
            found[f"{start}.attn.qkv.{end}"] = torch.cat(parts)
        elif ".key." not in name and ".value." not in name:
            found["predictor_proj." + name.removeprefix("proj.") if name.startswith("proj.") else name] = value
    return found


def definition(tokens: Tensor, weights: dict[str, Tensor], grid: tuple[int, int, int], ahead: int) -> Tensor:
    """The released predictor.py, from the encoder's tokens (B, N, D): those of the later step (B, S, D)."""
    step = grid[1] * grid[2]
    asked = weights["mask_tokens.1"].expand(len(tokens), step, -1)
    x = torch.cat([linear(tokens, weights, "predictor_embed"), asked], 1)
    numbers = torch.cat([torch.arange(tokens.shape[1]), (grid[0] + ahead) * step + torch.arange(step)])
    places = [(numbers // step).float(), (numbers % step // grid[2]).float(), (numbers % grid[2]).float()]
    for i in range(PREDICTOR["pred_num_hidden_layers"]):
        x = plain_block(x, weights, f"predictor_blocks.{i}", PREDICTOR["pred_num_attention_heads"], places)
    return linear(norm(x[:, -step:], weights, "predictor_norm"), weights, "predictor_proj")


@pytest.fixture
def released(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """A training state as the authors publish it, and its predictor's weights."""
    predictor = of_the_authors(folder)
    state = {
        "target_encoder": {f"module.backbone.{name}": value for name, value in by_their_names(folder).items()},
        "predictor": {f"module.backbone.{name}": value for name, value in predictor.items()}
        | {"module.backbone.predictor_pos_embed": torch.zeros(1, 3, 96)},
        "epoch": 3,
    }
    torch.save(state, folder.parent / "vitl.pt")
    return folder.parent / "vitl.pt", predictor


@pytest.mark.parametrize(("frames", "size"), [(6, 32), (4, 48)])
def test_a_released_file_gives_what_the_released_code_gives(
    released: tuple[Path, dict[str, Tensor]], frames: int, size: int
) -> None:
    file, predictor = released
    encoder, bare = load(file, heads=2, ahead=AHEAD), load(file, heads=2)
    video = film(frames, size)
    tokens, seen = encoder(video).tokens, bare(video).tokens
    assert same(tokens[:, :-1], seen)
    grid = frames // 2, size // 8, size // 8
    assert same(tokens[:, -1], definition(seen.flatten(1, 2), predictor, grid, AHEAD), 1e-5)
    assert not any("predictor" in name for name in bare.state_dict())


def test_what_of_a_training_state_is_left_out_is_said(
    released: tuple[Path, dict[str, Tensor]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "evalkit")
    load(released[0], heads=2)
    assert caplog.messages[-1].endswith("vitl.pt: took target_encoder, and not predictor")
    caplog.clear()
    load(released[0], heads=2, ahead=AHEAD)
    assert not caplog.messages


@pytest.mark.parametrize(("what", "classes"), [("verb", 3), ("noun", 5), ("action", 7)])
def test_each_query_of_a_released_classifier_is_a_classifier(
    released: tuple[Path, dict[str, Tensor]], what: str, classes: int
) -> None:
    file, _ = released
    encoder = load(file, heads=2, ahead=AHEAD)
    module = plugins.module_and_factory("adapter", "attentive_classifier")[0]
    torch.manual_seed(1)
    weights = {
        name: torch.randn_like(value) * 0.2
        for name, value in module.AttentiveClassifier(24, 2, 2, 2).state_dict().items()
        if not name.startswith("linear.")
    }
    weights["pooler.query_tokens"] = torch.randn(1, 3, 24)
    for name, count in (("verb", 3), ("noun", 5), ("action", 7)):
        weights |= {f"{name}_classifier.weight": torch.randn(count, 24), f"{name}_classifier.bias": torch.randn(count)}
    probe = write(file.parent / "ek100.pt", weights)
    examples = [Example(str(i), Path("x"), i % 2) for i in range(2)]
    views = Views("fps", 6, fps=8.0)
    task = replace(TASK, train=(), test=examples, classes=tuple("abcdefg"[:classes]), views=views, augment=None)
    made: dict[str, Any] = {"heads": 2, "blocks": 2, "probe": probe}
    classifiers = make_adapter("attentive_classifier", encoder, task, **made)
    # The published forward: a block, then three queries that each look at the tokens, then a map for each.
    pooler = module.AttentiveClassifier(24, 2, 2, 2).pooler
    pooler.query_tokens = torch.nn.Parameter(torch.empty(1, 3, 24))
    pooler.load_state_dict({k.removeprefix("pooler."): v for k, v in weights.items() if k.startswith("pooler.")})
    features = encoder(film()).tokens[:, None]
    with torch.no_grad():
        tokens = pooler.blocks[0](features.flatten(1, 3))
        queries = pooler.cross_attention_block(pooler.query_tokens.expand(2, -1, -1), tokens)
        wanted = linear(queries[:, ("verb", "noun", "action").index(what)], weights, f"{what}_classifier")
        found = classifiers(features)[0, :, 0]
    assert same(found, wanted, 1e-5)
    answered = make_adapter("attentive_classifier", encoder, task, test_classes=True, **made)
    for one, logits in zip(answered.predict(examples, features), wanted, strict=True):
        assert one.value[:2] == sorted((0, 1), key=lambda number: -float(logits[number]))
        assert sum(one.detail["probabilities"][:2]) == pytest.approx(1, abs=1e-5)
    with pytest.raises(Exception, match="tells 3 verbs, 5 nouns, 7 actions apart, and this task has 4 classes"):
        make_adapter("attentive_classifier", encoder, replace(task, classes=tuple("abcd")), **made)


def test_what_has_no_predictor_is_told(released: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    file, _ = released
    state = torch.load(file)
    torch.save({"encoder": state["target_encoder"]}, tmp_path / "bare.pt")
    assert "asks for V-JEPA 2's predictor, and" in refusal(tmp_path / "bare.pt", heads=2, ahead=4)
    assert refusal(file, heads=2, ahead=-1) == "encoder.ahead=-1: expected a whole number from 0 to 1024"
    assert refusal("demo", ahead=4).startswith("encoder.ahead=4 has no effect on")
    del state["predictor"]["module.backbone.predictor_proj.bias"]
    torch.save(state, tmp_path / "cut.pt")
    assert "missing predictor.model.proj.bias" in refusal(tmp_path / "cut.pt", heads=2, ahead=4)
    encoder = load(file, heads=2, ahead=4)
    with pytest.raises(Exception, match="encoder.ahead= gives a time step of the last layer alone"):
        encoder(film(), layers=2)
