"""Causal language models and tokenizers of transformers: loaded from disk or the hub, or untrained."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from evalkit import demo
from evalkit.errors import UserError, one_line
from evalkit.language import gguf
from evalkit.language.examine import traits
from evalkit.weights import huggingface, peft_adapters

PAD, UNKNOWN, BEGIN, END = range(4)
# Of lm=scratch: pieces of the vocabulary at most, width, layers.
SCRATCH = {"vocabulary": 8000, "width": 256, "layers": 3}
Precision = Literal["32", "bf16", "16"]
DTYPES: dict[Precision, torch.dtype] = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")


def load(source: str, *, precision: Precision = "32") -> tuple[nn.Module, Any]:
    """Load a causal language model and its tokenizer; it is examined before it is given.

    Args:
        source: a local folder, a GGUF file, or a hub id; empty means the embedded one.
        precision: of its weights in memory, and with them of its arithmetic.

    Raises:
        UserError: transformers cannot load it, its weights are not those of its configuration or no numbers, it is
            not causal, or an adapter of PEFT.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if source == "scratch":
        raise UserError("lm=scratch learns from captions, which only adapter=captioner does")
    if source == "none":
        raise UserError("lm=none: this adapter asks a language model; leave lm= out, or give a folder or hub id")
    folder = Path(source).expanduser() if source not in ("", "demo") else demo.LANGUAGE_MODEL
    try:
        if file := gguf.find(folder):
            model, tokenizer = gguf.load(file, DTYPES[precision])
            return _checked(model, tokenizer)
        if not folder.is_dir():
            if folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
                problem = f"this is a file: give its folder, {folder.parent}" if folder.is_file() else "no such folder"
                raise UserError(f"{problem}; wanted one that transformers saved, a GGUF file, or a name on its hub")
            folder = huggingface.fetch(source)
        peft_adapters.refuse_folder(folder, str(folder))
        if not (folder / "config.json").is_file():
            raise UserError("no config.json there, so it is no model that transformers saved")
        if not any((folder / name).is_file() for name in TOKENIZERS):
            raise UserError(
                f"a model is there, and no tokenizer ({' or '.join(TOKENIZERS)}); save the model's own beside it: "
                "AutoTokenizer.from_pretrained(...).save_pretrained(...)"
            )
        config = huggingface.read_config(folder)  # refuses code, before the tokenizer is read
        try:
            # By default, transformers asks at the terminal whether to run code that came with a model.
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # its own, tokenizers', sentencepiece's
            raise UserError(f"transformers cannot read its tokenizer: {one_line(error)}") from error
        try:
            model = huggingface.load(AutoModelForCausalLM, folder, dtype=DTYPES[precision])
        except UserError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            kind = "an encoder and a decoder" if config.is_encoder_decoder else "no causal language model"
            raise UserError(
                f"{config.model_type} is {kind}: give one that reads from left to right, such as Llama, Qwen or Gemma"
            ) from error
        return _checked(model, tokenizer)
    except UserError as error:
        raise UserError(f"lm={source}: {error}") from error


def _checked(model: nn.Module, tokenizer: Any) -> tuple[nn.Module, Any]:
    """A model and its tokenizer that fit each other, without settings of its own for what is generated.

    Raises:
        UserError: the tokenizer has more tokens than the model, or the model is not causal.
    """
    from transformers import GenerationConfig

    if tokenizer.vocab_size > (rows := model.get_input_embeddings().num_embeddings):  # type: ignore[operator]
        raise UserError(f"its tokenizer has {tokenizer.vocab_size:,} tokens, and its weights are of {rows:,}")
    traits(model)
    # Its own generation configuration would bring penalties and sampling; what ends a text is kept.
    ends = _end_tokens(model)
    model.generation_config = GenerationConfig(eos_token_id=ends)  # type: ignore[no-untyped-call,assignment]
    return model, tokenizer


def _end_tokens(model: Any) -> list[int] | None:
    """Ids of the tokens that end a text by the model's configuration and its generation configuration."""
    stated = [getattr(config, "eos_token_id", None) for config in (model.config, model.generation_config)]
    listed = [token for ids in stated for token in (ids if isinstance(ids, list | tuple) else [ids])]
    return sorted({token for token in listed if type(token) is int and token >= 0}) or None


def untrained(texts: Sequence[str]) -> tuple[nn.Module, Any]:
    """Make an untrained decoder, with a vocabulary learned from texts, for `lm=scratch`.

    Args:
        texts: the vocabulary is learned from these alone; the same texts give the same vocabulary.

    Raises:
        UserError: the texts are too few for a vocabulary.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.model"
        file.write_bytes(vocabulary(texts, SCRATCH["vocabulary"]))
        tokenizer = LlamaTokenizer.from_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=SCRATCH["width"],
        intermediate_size=4 * SCRATCH["width"],
        num_hidden_layers=SCRATCH["layers"],
        num_attention_heads=SCRATCH["width"] // 64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BEGIN,
        eos_token_id=END,
    )
    return LlamaForCausalLM(config), tokenizer


def vocabulary(texts: Iterable[str], size: int) -> bytes:
    """Learn a sentencepiece vocabulary (BPE) of `size` pieces, or fewer where the texts have no more.

    Raises:
        UserError: there is nothing to learn from.
    """
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            hard_vocab_limit=False,
            model_type="bpe",
            normalization_rule_name="identity",
            pad_id=PAD,
            unk_id=UNKNOWN,
            bos_id=BEGIN,
            eos_id=END,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise UserError(f"cannot learn a vocabulary from the training captions: {one_line(error)}") from error
    return model.getvalue()


def check_prompt(prompt: str, needs: Sequence[str]) -> None:
    """Check that a prompt holds all of these fields, such as {question}, and no other braces.

    Raises:
        UserError: it does not.
    """
    missing = [field for field in needs if field not in prompt]
    try:
        prompt.format(**{field.strip("{}"): "" for field in needs})
    except (KeyError, IndexError, ValueError):
        missing = list(needs)
    if missing:
        raise UserError(f"adapter.prompt={prompt!r}: wanted text with {' and '.join(needs)} and no other braces in it")
