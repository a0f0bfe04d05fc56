"""Language models from disk: refused where their files do not fit one another."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evalkit.errors import UserError
from evalkit.language.causal_lm import Continuation, LanguageModel
from evalkit.language.models import load
from evalkit.language.reader import VideoLanguageModel


@pytest.fixture
def copy(lm: Path, tmp_path: Path) -> Path:
    shutil.copytree(lm, tmp_path / "lm")
    return tmp_path / "lm"


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(str(folder))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"lm={folder}: ")
    return str(caught.value)


def change(folder: Path, name: str, value: Any, file: str = "config.json") -> None:
    stated = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**stated, name: value}))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("num_hidden_layers", 1, "unexpected model.layers.1."),
        ("num_hidden_layers", 3, "missing model.layers.2."),
        ("vocab_size", 300, "model.embed_tokens.weight is (200, 32), wanted (300, 32)"),
        ("hidden_size", 64, "model.layers.0."),
        ("num_hidden_layers", 10**9, "no model has so many"),
    ],
)
def test_a_configuration_of_another_model_than_the_weights_is_refused(
    copy: Path, name: str, value: int, told: str
) -> None:
    change(copy, name, value)
    assert told in refusal(copy)


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "num_hidden_layers", "model_type", "hidden_act"])
def test_values_of_wrong_types_are_told_in_one_line(copy: Path, name: str) -> None:
    kept = (copy / "config.json").read_text()
    for value in ("x", None, [1], {"a": 1}, -1, 10**30):
        change(copy, name, value)
        refusal(copy)
        (copy / "config.json").write_text(kept)


@pytest.mark.parametrize("value", [3, ["LlamaTokenizer"], {"a": 1}, True, "NoSuchTokenizer", "../evil"])
def test_a_tokenizer_class_of_a_wrong_type_is_told_or_not_needed(copy: Path, value: Any) -> None:
    change(copy, "tokenizer_class", value, "tokenizer_config.json")
    try:
        load(str(copy))
    except UserError as error:
        assert "\n" not in str(error) and "cannot read its tokenizer" in str(error)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["[1]", "[" * 100_000, "", "null"])
def test_files_that_are_no_objects_are_told_in_one_line(copy: Path, file: str, content: str) -> None:
    (copy / file).write_text(content)
    try:
        load(str(copy))  # without what the file says, where there is another
    except UserError as error:
        assert "\n" not in str(error)


def test_weights_that_are_missing_or_no_numbers_are_told_by_name(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({k: v for k, v in weights.items() if k != name}, copy / "model.safetensors", {"format": "pt"})
    assert f"missing {name}" in refusal(copy)
    for value in ("nan", "inf"):
        bad = {**weights, name: torch.full_like(weights[name], float(value))}
        save_file(bad, copy / "model.safetensors", {"format": "pt"})
        assert f"{name} holds 2,048 of 2,048 values that are NaN or infinite" in refusal(copy)


def test_a_tokenizer_of_another_model_is_refused(copy: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    shutil.copytree(copy, small)
    from transformers import LlamaConfig, LlamaForCausalLM

    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=50, num_attention_heads=2, **shape)).save_pretrained(small)
    assert "its tokenizer has 200 tokens, and its weights are of 50" in refusal(small)


def test_the_embedded_one_loads(lm: Path) -> None:
    for source in ("", str(lm)):
        model, tokenizer = load(source)
        assert tokenizer.vocab_size == model.get_input_embeddings().num_embeddings  # type: ignore[operator]


def test_weights_that_are_missing_are_not_drawn(copy: Path, tmp_path: Path) -> None:
    """A head that is not tied to the embeddings, and the folder of an encoder-decoder, which is no decoder alone."""
    weights = load_file(copy / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k != "lm_head.weight"}, copy / "model.safetensors", {"format": "pt"})
    assert "missing lm_head.weight" in refusal(copy)
    from transformers import BartConfig, BartForConditionalGeneration

    shape: dict[str, Any] = {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 200}
    layers: dict[str, Any] = {
        f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")
    }
    shutil.copytree(copy, tmp_path / "bart")
    BartForConditionalGeneration(BartConfig(**shape, **layers)).save_pretrained(tmp_path / "bart")
    assert "do not fit the model" in refusal(tmp_path / "bart")


def test_a_masked_model_is_refused_by_its_folder(copy: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel

    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 200}
    for model in (BertForMaskedLM, BertLMHeadModel):
        model(BertConfig(num_attention_heads=2, **shape)).save_pretrained(copy)
        assert "is not causal" in refusal(copy)


def test_an_encoder_with_a_decoder_is_called_so(copy: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    shape: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 200}
    T5ForConditionalGeneration(T5Config(**shape)).save_pretrained(copy)
    told = refusal(copy)
    assert "t5 is an encoder and a decoder: give one that reads from left to right, such as Llama" in told
    assert len(told) < 300


def test_half_precision_is_that_of_the_weights_and_likelihoods_are_near(lm: Path) -> None:
    asked = [Continuation(0, "What happens?", text) for text in ("a red ring grows", "a blue square")]
    whole = LanguageModel(*load(str(lm))).loglikelihoods(asked)
    for precision, dtype in (("bf16", torch.bfloat16), ("16", torch.float16)):
        model, tokenizer = load(str(lm), precision=precision)  # type: ignore[arg-type]
        assert {value.dtype for value in model.parameters()} == {dtype}
        for join in ("prefix", "cross_attention"):
            reader = VideoLanguageModel(24, model, tokenizer, latents=3, depth=1, gate=False, join=join).eval()
            loss = reader.loss(asked, torch.randn(1, 2, 4, 24))
            loss.backward()  # type: ignore[no-untyped-call]
            trained = [value for value in reader.parameters() if value.requires_grad]
            assert {value.dtype for value in trained} == {torch.float32} and loss.isfinite()
            half = reader.loglikelihoods(asked)
            assert [h.logprob for h in half] == pytest.approx([w.logprob for w in whole], rel=0.02)


def test_gguf_files_are_told_apart_and_refused_in_one_line(copy: Path, tmp_path: Path) -> None:
    for content in (b"", b"GGUF", b"GGUF" + b"\xff" * 64, b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 8, b"PK\3\4"):
        (tmp_path / "model.gguf").write_bytes(content)
        refusal(tmp_path / "model.gguf")
    (tmp_path / "models").mkdir()
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "models" / name).write_bytes(b"GGUF")
    assert "several GGUF files are there (a.gguf, b.gguf); give one" in refusal(tmp_path / "models")
    assert "no such file" in refusal(tmp_path / "none.gguf")
    (copy / "more.gguf").write_bytes(b"")
    load(str(copy))  # a folder that transformers saved stays what it is


def test_a_gguf_file_without_its_package_is_told_with_the_command(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for missing in ("gguf", "accelerate"):  # transformers reads such files by both
        monkeypatch.setattr("importlib.util.find_spec", lambda name, missing=missing: None if name == missing else name)
        message = refusal(tmp_path / "model.gguf")
        assert f"the package {missing}, which is not installed: pip install 'video-evalkit[gguf]'" in message
