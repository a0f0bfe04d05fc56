"""Tiny models of random weights of each family of causal language models that transformers can build."""

import copy
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from evalkit.errors import UserError
from evalkit.language.causal_lm import Continuation, LanguageModel
from evalkit.language.continuations import Generated
from evalkit.language.examine import options
from evalkit.language.reader import VideoLanguageModel

# What makes a configuration tiny, by the names that families give to their sizes.
SIZES = {
    r"(d_model|n_embd|hidden_size|hidden_dim|embed_dim|embedding_size|model_dim|dim|lru_width|word_embed_proj_dim)": 32,
    r"(ffn_hidden_size|\w*intermediate_size\w*|n_inner|dff|\w*ffn_dim|dim_ff)": 64,
    r"(num_hidden_layers|n_layers?|num_layers|encoder_layers|decoder_layers|num_(en|de)coder_layers)": 2,
    r"(n_heads?|num_heads|num_attention_heads|(en|de)coder_attention_heads|num_(en|de)coder_attention_heads)": 4,
    r"(num_key_value_heads|num_kv_heads|n_head_kv|num_global_key_value_heads)": 2,
    r"(\w*head_dim|rotary_dim|kv_channels|dim_head)": 8,
    r"vocab_size": 200,
    r"(num_experts|n_routed_experts|num_local_experts|moe_num_experts|num_routed_experts)": 4,
    r"(num_experts_per_tok|top_k_experts|moe_k|moe_top_k)": 2,
    r"(max_position_embeddings|n_positions|n_ctx|max_seq_len|seq_length)": 128,
    r"(sliding_window|sliding_window_size|attention_window_size|attention_chunk_size|window_size)": 8,
    r"(mamba_d_ssm|mamba_chunk_size|chunk_size)": 64,
    r"(mamba_n_heads|mamba_num_heads|n_mamba_heads)": 8,
    r"(pad|bos|eos|decoder_start)_token_id": 1,
}
# Of families whose sizes depend on each other.
MORE: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "cpmant": {"prompt_types": 2, "prompt_length": 2, "segment_types": 2},
    "deepseek_v2": {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "num_key_value_heads": 4},
    "gemma3n_text": {
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 200,
        "num_kv_shared_layers": 0,
        "laurel_rank": 4,
        "layer_types": ["sliding_attention", "full_attention"],
        "activation_sparsity_pattern": [0.0, 0.0],
        "intermediate_size": [64, 64],
    },
    "gemma4_text": {
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 200,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_kv_shared_layers": 0,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "local"]},
    "longcat_flash": {"ffn_hidden_size": 64, "expert_ffn_hidden_size": 32, "n_routed_experts": 4, "zero_expert_num": 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8},
    "opt": {"word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "reformer": {
        "axial_pos_embds_dim": [16, 16],
        "axial_pos_shape": [8, 16],
        "attn_layers": ["local", "lsh"],
        "is_decoder": True,
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
    },
    "xlm": {"emb_dim": 32},
    "zamba": {"layers_block_type": ["mamba", "hybrid"], "mamba_dt_rank": 4},
    "nemotron": {"num_key_value_heads": 4, "head_dim": 8},
    "ministral": {"head_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
}


def kinds() -> list[str]:
    """The families, by the names of their configurations."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return [*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]


def tiny(kind: str, **settings: Any) -> Any:
    """A model of two layers, at most some millions of weights, in evaluation mode, the same every time.

    Raises:
        Exception: whatever transformers raises of a configuration that cannot be that small.
    """
    import transformers

    auto: Any = transformers
    default = auto.AutoConfig.for_model(kind)
    values = {**_shrunken(default), **MORE.get(kind, {}), **settings}
    config = auto.AutoConfig.for_model(kind, **values)
    with torch.device("meta"):
        count = sum(value.numel() for value in auto.AutoModelForCausalLM.from_config(config).parameters())
    if count > 2e7:
        raise ValueError(f"{count:,} weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = auto.AutoModelForCausalLM.from_config(config).eval()
    return model


def _shrunken(config: Any) -> dict[str, Any]:
    """Smaller sizes, and windows of attention in one of two layers where the family knows them."""
    values: dict[str, Any] = {}
    settings = config.to_dict()
    for name, value in settings.items():
        if isinstance(value, dict) and hasattr(part := getattr(config, name, None), "to_dict"):
            values[name] = _shrunken(part)
        elif name in ("layer_types", "mlp_layer_types", "layers_block_type") and isinstance(value, list):
            others = [kind for kind in value if kind != value[0]]
            if not others and name == "layer_types" and "use_sliding_window" in settings:
                others = ["sliding_attention"]
            values[name] = [value[0], others[0] if others else value[0]]
        elif name == "use_sliding_window":
            values[name] = True
        elif name == "sliding_window" and not value:
            values[name] = 8
        elif isinstance(value, int) and not isinstance(value, bool):
            small = next((small for pattern, small in SIZES.items() if re.fullmatch(pattern, name)), value)
            if value > small:
                values[name] = small
    return values


class Conformance(NamedTuple):
    """How a family does with one join.

    Attributes:
        refusal: why it is not used so, or not for so long texts; empty where it is.
        reference: largest difference of a log-likelihood from that of a whole sequence, alone and without a cache.
        batch: largest difference from that of one text at a time.
        seen: smallest change that the video makes.
        generated: whether a batch of texts is that of an uncached greedy loop for each.
    """

    refusal: str = ""
    reference: float = 0.0
    batch: float = 0.0
    seen: float = 0.0
    generated: bool = False


CONTEXTS = ("What happens in this video with the ring?", "What? And")
ASKED = [
    *(
        Continuation(0, CONTEXTS[0], text)
        for text in ("a red ring grows", "a blue cross", "it moves left, then blinks")
    ),
    *(Continuation(1, CONTEXTS[1], text) for text in ("a blue square", "it turns green")),
    Continuation(1, "And then?", "it turns green"),
]


@torch.no_grad()
def conformance(lm: Any, tokenizer: Any) -> Mapping[str, Conformance]:
    """How a model does with text alone, with visual tokens before its words, and by cross-attention."""
    from transformers import GenerationConfig

    lm.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]  # as a loaded one's is
    tokens = torch.randn(2, 4, 5, 24, generator=torch.Generator().manual_seed(1))
    result: dict[str, Conformance] = {}
    for join in ("text", "prefix", "cross_attention"):
        try:
            reader = _reader(copy.deepcopy(lm), tokenizer, join)
        except UserError as error:
            result[join] = Conformance(str(error))
            continue
        result[join] = _measured(reader, None if join == "text" else tokens)
    return result


def _reader(lm: Any, tokenizer: Any, join: Any) -> LanguageModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if join == "text":
            return LanguageModel(lm, tokenizer).eval()
        return VideoLanguageModel(24, lm, tokenizer, latents=3, depth=1, gate=False, join=join).eval()


def _measured(reader: LanguageModel, tokens: Tensor | None) -> Conformance:
    def of(video: int) -> Tensor | None:
        return None if tokens is None else tokens[video : video + 1]

    likelihoods = reader.loglikelihoods(ASKED, tokens)
    if failures := [likelihood.failure for likelihood in likelihoods if likelihood.failure]:
        return Conformance(failures[0])
    together = [likelihood.logprob for likelihood in likelihoods]
    singly = [reader.loglikelihoods([one._replace(video=0)], of(one.video))[0].logprob for one in ASKED]
    whole = []
    for video, context, text in ASKED:
        ids, (rest,) = reader.prompts.split_options(context, [text])
        logprobs = _logits(reader, ids + rest, of(video))[-len(rest) - 1 : -1].double().log_softmax(-1)
        whole.append(float(logprobs[range(len(rest)), rest].sum()))
    blind = [likelihood.logprob for likelihood in reader.loglikelihoods(ASKED)]
    texts = []
    for video, prompt in enumerate(CONTEXTS):
        ids, new = reader.prompts.encode(prompt), list[int]()
        while len(new) < 5 and reader.eos not in new:
            new.append(int(_logits(reader, ids + new, of(video))[-1].argmax()))
        texts.append(Generated(reader.tokenizer.decode(new, skip_special_tokens=True).strip(), reader.eos in new))
    return Conformance(
        reference=max(abs(a - b) for a, b in zip(together, whole, strict=True)),
        batch=max(abs(a - b) for a, b in zip(together, singly, strict=True)),
        seen=min(abs(a - b) for a, b in zip(together, blind, strict=True)),
        generated=reader.generate(CONTEXTS, tokens, 1, 5) == texts,
    )


def _logits(reader: LanguageModel, ids: list[int], tokens: Tensor | None) -> Tensor:
    """Logits (L, vocabulary) of a sequence by itself, after the video if there is one."""
    row = torch.tensor([ids])
    inputs = reader.join.inputs(reader.words, row, torch.ones_like(row), reader.visual_tokens(tokens))
    return reader.lm(**inputs, **options(reader.lm, use_cache=False)).logits[0, -len(ids) :]  # type: ignore[no-any-return]
