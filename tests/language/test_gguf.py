"""A GGUF file that gguf wrote: the model that transformers saved, weight for weight, or a line that says why not."""

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evalkit.errors import UserError
from evalkit.language.causal_lm import Continuation, LanguageModel
from evalkit.language.models import load

gguf: Any = pytest.importorskip("gguf", reason="needs the package gguf: pip install 'video-evalkit[gguf]'")

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def tensors(model: Any) -> dict[str, Tensor]:
    """A Llama's weights by the names, and in the order of rows, of llama.cpp."""
    named = {
        "token_embd.weight": model.model.embed_tokens.weight,
        "output_norm.weight": model.model.norm.weight,
        "output.weight": model.lm_head.weight,
    }
    heads = model.config.num_attention_heads
    for k, layer in enumerate(model.model.layers):
        for name, other in NAMES.items():
            weight = layer.get_submodule(name).weight
            if other in ("attn_q", "attn_k"):
                weight = weight.view(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
            named[f"blk.{k}.{other}.weight"] = weight
    return {name: value.detach() for name, value in named.items()}


def write(file: Path, model: Any, tokenizer: Any, weights: dict[str, Tensor]) -> Path:
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(128)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("llama")
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(k) for k in range(len(pieces))])
    writer.add_token_types([3 if k < 4 else 1 for k in range(len(pieces))])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_unk_token_id(1)
    writer.add_pad_token_id(0)
    for name, value in weights.items():
        writer.add_tensor(name, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_gguf_file_is_the_model_that_was_saved_and_its_folder_is_too(
    lm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = load(str(lm))
    file = write(tmp_path / "model.gguf", model, tokenizer, tensors(model))
    ids = torch.tensor([[2, 17, 50, 99, 120]])
    for source, precision in ((file, "32"), (tmp_path, "32"), (file, "bf16")):
        other, its_tokenizer = load(str(source), precision=precision)  # type: ignore[arg-type]
        assert len(its_tokenizer) == len(tokenizer) and its_tokenizer.eos_token_id == 3
        with torch.no_grad():
            off = (other(input_ids=ids).logits.float() - model(input_ids=ids).logits).abs().max()
        assert off < (1e-5 if precision == "32" else 0.05)
    (likelihood,) = LanguageModel(*load(str(file))).loglikelihoods([Continuation(0, "What happens?", "a red ring")])
    assert likelihood.logprob < 0
    assert capsys.readouterr().err == ""  # no progress bar of transformers'


def test_tensors_that_are_missing_or_would_be_passed_over_are_told(lm: Path, tmp_path: Path) -> None:
    model, tokenizer = load(str(lm))
    weights = tensors(model)
    for name, changed in (
        ("missing model.layers.1.mlp.up_proj.weight", {k: v for k, v in weights.items() if k != "blk.1.ffn_up.weight"}),
        ("unexpected rope_freqs.weight", {**weights, "rope_freqs.weight": torch.ones(8)}),
        ("are NaN or infinite", {**weights, "output_norm.weight": torch.full((32,), float("nan"))}),
    ):
        file = write(tmp_path / "model.gguf", model, tokenizer, changed)
        with pytest.raises(UserError) as told:
            load(str(file))
        assert name in str(told.value) and str(told.value).startswith(f"lm={file}: ") and "\n" not in str(told.value)


def test_a_file_that_is_cut_off_or_claims_too_much_is_told(lm: Path, tmp_path: Path) -> None:
    model, tokenizer = load(str(lm))
    whole = write(tmp_path / "whole.gguf", model, tokenizer, tensors(model)).read_bytes()
    damaged = r"the header of this GGUF file \([\d,]+ bytes\) is damaged or cut off: get the file again"
    version = "this GGUF file is version 99; versions 2 and 3 with little-endian numbers are read"
    for content, why in (
        (whole[: len(whole) // 2], "the file is cut off: a tensor goes past its end"),
        (whole[:3000], damaged),
        (whole[:6], damaged),
        (whole[:16] + struct.pack("<Q", 2**60) + whole[24:], damaged),  # so many entries
        (whole[:24] + struct.pack("<Q", 2**62) + whole[32:], damaged),  # so long a name
        (whole[:4] + struct.pack("<I", 99) + whole[8:], version),
        (whole[:4] + struct.pack(">I", 3) + whole[8:], "this GGUF file is of big-endian numbers; versions"),
        (whole.replace(b"llama", b"\xff" * 5, 1), damaged),
        (whole.replace(b"general.architecture", b"general.architectura", 1), damaged),
        (
            whole.replace(b"token_embd.weight", b"token_embd.weigh\xff", 1),
            damaged,
        ),
    ):
        (tmp_path / "broken.gguf").write_bytes(content)
        with pytest.raises(UserError, match=rf"lm=.*broken\.gguf: {why}"):
            load(str(tmp_path / "broken.gguf"))
    model.config.num_hidden_layers = 10**9  # type: ignore[union-attr]
    file = write(tmp_path / "deep.gguf", model, tokenizer, tensors(model))
    with pytest.raises(UserError, match=r"block_count \(layers\)=1000000000: no model has so many"):
        load(str(file))
