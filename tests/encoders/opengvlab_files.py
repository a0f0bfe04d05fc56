"""Tiny files in the layouts that OpenGVLab publishes, and what their models give, written anew in plain arithmetic."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DIM, HIDDEN, DEPTH, HEADS = 48, 64, 2, 4
POOLED = 32  # of InternVideo2's attention pooling
TIMES = 2  # that InternVideo2's stored positions were made for
Weights = dict[str, Tensor]
DRAWN = torch.Generator()


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=DRAWN) * 0.12


def norm(name: str, width: int, bias: bool = True) -> Weights:
    return {f"{name}.weight": drawn(width) + 1} | ({f"{name}.bias": drawn(width)} if bias else {})


def linear(name: str, into: int, out: int, bias: bool = True) -> Weights:
    return {f"{name}.weight": drawn(out, into)} | ({f"{name}.bias": drawn(out)} if bias else {})


def blocks(internvideo2: bool, start: str = "") -> Weights:
    weights: Weights = {}
    for number in range(DEPTH):
        block = f"{start}blocks.{number}"
        weights |= norm(f"{block}.norm1", DIM, not internvideo2) | norm(f"{block}.norm2", DIM, not internvideo2)
        weights |= linear(f"{block}.attn.qkv", DIM, 3 * DIM, False) | linear(f"{block}.attn.proj", DIM, DIM)
        weights |= linear(f"{block}.mlp.fc1", DIM, HIDDEN) | linear(f"{block}.mlp.fc2", HIDDEN, DIM)
        if internvideo2:
            weights |= norm(f"{block}.attn.q_norm", DIM, False) | norm(f"{block}.attn.k_norm", DIM, False)
            weights |= {f"{block}.ls1.gamma": drawn(DIM), f"{block}.ls2.gamma": drawn(DIM)}
        else:
            weights |= {f"{block}.attn.q_bias": drawn(DIM), f"{block}.attn.v_bias": drawn(DIM)}
    return weights


def masked(depth_of_tube: int, start: str = "", normed: bool = True) -> Weights:
    """VideoMAE v2 (tubes of 2 frames) or UMT (of 1)."""
    patch = {f"{start}patch_embed.proj.weight": drawn(DIM, 3, depth_of_tube, 16, 16) / 6}
    patch |= {f"{start}patch_embed.proj.bias": drawn(DIM)}
    return patch | blocks(False, start) | (norm(f"{start}norm", DIM) if normed else {})


def classifier(width: int, classes: int = 3) -> Weights:
    return norm("fc_norm", width) | linear("head", width, classes)


def pooling(start: str = "") -> Weights:
    name = f"{start}clip_projector"
    weights = linear(f"{name}.cross_attn.proj", DIM, POOLED)
    for letter in "qkv":
        weights |= norm(f"{name}.norm1_{letter}", DIM) | linear(f"{name}.cross_attn.{letter}", DIM, DIM, False)
        weights[f"{name}.cross_attn.{letter}_bias"] = drawn(DIM)
    return weights


def internvideo2(start: str = "") -> Weights:
    weights = {
        f"{start}patch_embed.proj.weight": drawn(DIM, 3, 1, 14, 14) / 6,
        f"{start}patch_embed.proj.bias": drawn(DIM),
    }
    weights |= {f"{start}cls_token": drawn(1, 1, DIM), f"{start}pos_embed": drawn(1, 1 + TIMES * 256, DIM)}
    return weights | blocks(True, start) | pooling(start)


def bert(layers: int, fused: int, width: int = 128, words: int = 12) -> Weights:
    """The authors' BERT: layers of text, then those that look at a video, and the words' head."""
    start = "text_encoder.bert."
    weights = {
        f"{start}embeddings.word_embeddings.weight": drawn(words, width),
        f"{start}embeddings.position_embeddings.weight": drawn(40, width),
        f"{start}embeddings.token_type_embeddings.weight": drawn(2, width),
        f"{start}embeddings.position_ids": torch.arange(40)[None],
        **norm(f"{start}embeddings.LayerNorm", width),
    }
    for number in range(layers + fused):
        layer = f"{start}encoder.layer.{number}"
        for attention in ["attention"] if number < layers else ["attention", "crossattention"]:
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                of_video = attention == "crossattention" and part in ("self.key", "self.value")
                weights |= linear(f"{layer}.{attention}.{part}", DIM if of_video else width, width)
            weights |= norm(f"{layer}.{attention}.output.LayerNorm", width)
        weights |= linear(f"{layer}.intermediate.dense", width, 32) | linear(f"{layer}.output.dense", 32, width)
        weights |= norm(f"{layer}.output.LayerNorm", width)
    weights |= linear("text_encoder.cls.predictions.decoder", width, words)
    return weights | linear("text_proj", width, 20) | linear("itm_head", width, 2)


def save(path: Path, weights: Mapping[str, Tensor], key: str = "module") -> Path:
    """A training state as the authors save it."""
    torch.save({key: dict(weights), "epoch": 3} if key else dict(weights), path)
    return path


# --- what the models give --------------------------------------------------------------------------------------------


def normed(x: Tensor, weights: Weights, name: str, eps: float) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    return (
        centered / (centered.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weights[f"{name}.weight"]
        + weights[f"{name}.bias"]
    )


def by_square(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def through(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(1))


def attended(query: Tensor, key: Tensor, value: Tensor, heads: int, causal: bool = False) -> Tensor:
    width = query.shape[-1] // heads
    outputs = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ key[..., part].transpose(-2, -1) / math.sqrt(width)
        if causal:
            scores = scores + torch.full(scores.shape[-2:], -torch.inf).triu(1)
        outputs.append(scores.softmax(-1) @ value[..., part])
    return torch.cat(outputs, -1)


def gelu(x: Tensor, tanh: bool) -> Tensor:
    if tanh:
        return x * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def block(x: Tensor, weights: Weights, name: str, internvideo2: bool) -> Tensor:
    ones = torch.ones(1)
    first = by_square(x, weights[f"{name}.norm1.weight"]) if internvideo2 else normed(x, weights, f"{name}.norm1", 1e-6)
    query, key, value = through(first, weights, f"{name}.attn.qkv").chunk(3, -1)
    if internvideo2:
        query = by_square(query, weights[f"{name}.attn.q_norm.weight"])
        key = by_square(key, weights[f"{name}.attn.k_norm.weight"])
    else:
        query, value = query + weights[f"{name}.attn.q_bias"], value + weights[f"{name}.attn.v_bias"]
    seen = through(attended(query, key, value, HEADS), weights, f"{name}.attn.proj")
    x = x + weights.get(f"{name}.ls1.gamma", ones) * seen
    second = (
        by_square(x, weights[f"{name}.norm2.weight"]) if internvideo2 else normed(x, weights, f"{name}.norm2", 1e-6)
    )
    inner = gelu(through(second, weights, f"{name}.mlp.fc1"), internvideo2)
    return x + weights.get(f"{name}.ls2.gamma", ones) * through(inner, weights, f"{name}.mlp.fc2")


def patched(video: Tensor, weights: Weights) -> Tensor:
    """Tubelets (B, N, D) of a video (B, T, 3, H, W)."""
    kernel = weights["patch_embed.proj.weight"]
    depth, side = kernel.shape[2], kernel.shape[3]
    batch, times, _, height, width = video.shape
    cut = video.reshape(batch, times // depth, depth, 3, height // side, side, width // side, side)
    cut = cut.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4).flatten(1, 3)
    return cut @ kernel.flatten(1).T + weights["patch_embed.proj.bias"]


def sines(count: int) -> Tensor:
    rows = [
        [(math.cos if i % 2 else math.sin)(place / 10000 ** (2 * (i // 2) / DIM)) for i in range(DIM)]
        for place in range(count)
    ]
    return torch.tensor(rows)


def states(video: Tensor, weights: Weights) -> Tensor:
    """The last block's output (B, [1 +] N, D), before any norm."""
    of_internvideo2 = "cls_token" in weights
    x = patched(video, weights)
    if of_internvideo2:
        x = torch.cat([weights["cls_token"].expand(len(x), -1, -1), x], 1) + weights["pos_embed"]
    else:
        x = x + weights.get("pos_embed", sines(x.shape[1]))
    for number in range(DEPTH):
        x = block(x, weights, f"blocks.{number}", of_internvideo2)
    return x


def pooled(x: Tensor, weights: Weights) -> Tensor:
    """InternVideo2's vector (B, POOLED) of its last block's output."""
    name = "clip_projector"
    parts = {
        letter: through(normed(given, weights, f"{name}.norm1_{letter}", 1e-5), weights, f"{name}.cross_attn.{letter}")
        + weights[f"{name}.cross_attn.{letter}_bias"]
        for letter, given in (("q", x.mean(1, keepdim=True)), ("k", x), ("v", x))
    }
    return through(attended(parts["q"], parts["k"], parts["v"], 16), weights, f"{name}.cross_attn.proj")[:, 0]


def bert_layer(x: Tensor, weights: Weights, name: str, video: Tensor | None = None) -> Tensor:
    """A layer of BERT with two heads over one text's states (N, width), which look at a video (L, DIM) where it has."""
    for attention in ["attention"] if video is None else ["attention", "crossattention"]:
        start, seen = f"{name}.{attention}", x if attention == "attention" else video
        assert seen is not None
        parts = [
            through(given, weights, f"{start}.self.{part}")
            for part, given in (("query", x), ("key", seen), ("value", seen))
        ]
        added = through(attended(parts[0], parts[1], parts[2], 2), weights, f"{start}.output.dense")
        x = normed(x + added, weights, f"{start}.output.LayerNorm", 1e-12)
    inner = gelu(through(x, weights, f"{name}.intermediate.dense"), False)
    return normed(x + through(inner, weights, f"{name}.output.dense"), weights, f"{name}.output.LayerNorm", 1e-12)


def bert_states(ids: list[int], weights: Weights, layers: int) -> Tensor:
    """The states (N, width) of a text's tokens after the layers that see text alone."""
    start = "text_encoder.bert"
    x = weights[f"{start}.embeddings.word_embeddings.weight"][ids]
    x = x + weights[f"{start}.embeddings.position_embeddings.weight"][: len(ids)]
    x = x + weights[f"{start}.embeddings.token_type_embeddings.weight"][0]
    x = normed(x, weights, f"{start}.embeddings.LayerNorm", 1e-12)
    for number in range(layers):
        x = bert_layer(x, weights, f"{start}.encoder.layer.{number}")
    return x


def match(video: Tensor, states: Tensor, weights: Weights, layers: int, fused: int) -> float:
    """The logit that a text of these states describes a video (L, DIM)."""
    for number in range(layers, layers + fused):
        states = bert_layer(states, weights, f"text_encoder.bert.encoder.layer.{number}", video)
    return float(through(states[0], weights, "itm_head")[1])


def mobileclip(width: int = 64, words: int = 60, tokens: int = 12) -> Weights:
    """MobileCLIP's text tower in its own file, beside its image tower."""
    start = "text_encoder."
    weights = {
        f"{start}embedding_layer.weight": drawn(words, width),
        f"{start}positional_embedding.pos_embed.pos_embed": drawn(1, 1, tokens, width),
        f"{start}projection_layer": drawn(width, 20),
        "image_encoder.head.weight": drawn(2, 2),
        "logit_scale": drawn(),
        **norm(f"{start}final_layer_norm", width),
    }
    for number in range(2):
        layer = f"{start}transformer.{number}"
        weights |= norm(f"{layer}.pre_norm_mha.0", width) | norm(f"{layer}.pre_norm_ffn.0", width)
        weights |= linear(f"{layer}.pre_norm_mha.1.qkv_proj", width, 3 * width)
        weights |= linear(f"{layer}.pre_norm_mha.1.out_proj", width, width)
        weights |= linear(f"{layer}.pre_norm_ffn.1", width, 96) | linear(f"{layer}.pre_norm_ffn.4", 96, width)
    return weights


def mobileclip_gives(ids: list[int], weights: Weights) -> Tensor:
    """The vector of one text, whose last id is the largest."""
    start = "text_encoder."
    x = weights[f"{start}embedding_layer.weight"][ids]
    x = x + weights[f"{start}positional_embedding.pos_embed.pos_embed"][0, 0, : len(ids)]
    for number in range(2):
        layer = f"{start}transformer.{number}"
        first = normed(x, weights, f"{layer}.pre_norm_mha.0", 1e-5)
        parts = through(first, weights, f"{layer}.pre_norm_mha.1.qkv_proj").chunk(3, -1)
        x = x + through(
            attended(parts[0], parts[1], parts[2], 1, causal=True), weights, f"{layer}.pre_norm_mha.1.out_proj"
        )
        inner = gelu(
            through(normed(x, weights, f"{layer}.pre_norm_ffn.0", 1e-5), weights, f"{layer}.pre_norm_ffn.1"), False
        )
        x = x + through(inner, weights, f"{layer}.pre_norm_ffn.4")
    return normed(x, weights, f"{start}final_layer_norm", 1e-5)[-1] @ weights[f"{start}projection_layer"]


def llama(width: int = 32, words: int = 64) -> Weights:
    """InternVL-C's file: LLaMA with LoRA beside its linear maps, and what belongs to its image model."""
    weights = {
        "transformer.embed_tokens.weight": drawn(words, width),
        "text_projection": drawn(width, POOLED),
        "logit_scale": drawn(),
        "query_tokens": drawn(1, 3),
        **norm("transformer.norm", width, False),
    }
    for number in range(2):
        layer = f"transformer.layers.{number}"
        for part in "qkvo":
            weights |= linear(f"{layer}.self_attn.{part}_proj", width, width, False)
        for part in "qv":
            weights[f"{layer}.self_attn.{part}_proj.lora_A.default.weight"] = drawn(4, width)
            weights[f"{layer}.self_attn.{part}_proj.lora_B.default.weight"] = drawn(width, 4)
        weights[f"{layer}.self_attn.rotary_emb.inv_freq"] = drawn(16)
        weights |= linear(f"{layer}.mlp.gate_proj", width, 40, False) | linear(f"{layer}.mlp.up_proj", width, 40, False)
        weights |= linear(f"{layer}.mlp.down_proj", 40, width, False)
        weights |= norm(f"{layer}.input_layernorm", width, False)
        weights |= norm(f"{layer}.post_attention_layernorm", width, False)
    return weights


def renamed(weights: Mapping[str, Any], start: str) -> Weights:
    """Those whose names start so, without it."""
    return {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
