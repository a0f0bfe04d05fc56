"""Which language model an adapter asks, by `lm=`: one of transformers, with an encoder's tokens or alone, or served."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evalkit.api import Batch, Encoder
from evalkit.errors import UserError
from evalkit.language.causal_lm import Continuation, LanguageModel
from evalkit.language.models import Precision, load
from evalkit.language.reader import ReaderSettings, VideoLanguageModel
from evalkit.language.served import ServedModel, is_address
from evalkit.language.templates import TemplateChoice, choose_template

MOST_PROMPT = 20_000  # characters that the record holds of the first prompt


def open_reader(
    encoder: Encoder,
    settings: ReaderSettings,
    template: TemplateChoice,
    scratch: tuple[nn.Module, Any] | None = None,
) -> LanguageModel | ServedModel:
    """The language model of `settings.lm`; it reads the encoder's tokens unless that is no encoder, of `dim` 0.

    Args:
        encoder: whose tokens it reads.
        settings: of the adapter.
        template: what stands around each prompt.
        scratch: an untrained model and its tokenizer in place of the one that is named, to be trained as a whole.

    Raises:
        UserError: there is no such model, or it is a served one, which reads no tokens of an encoder.
    """
    if is_address(settings.lm):
        if encoder.dim:
            raise UserError(
                f"lm={settings.lm}: a server reads text alone, and no encoder's tokens: give ckpt=none, or the folder "
                "or hub id of the model as lm="
            )
        return open_text_model(settings.lm, template, settings.lm_precision)
    if not encoder.dim:
        return open_text_model(settings.lm, template, settings.lm_precision)
    model, tokenizer = scratch or load(settings.lm, precision=settings.lm_precision)
    reader = VideoLanguageModel(
        encoder.dim,
        model,
        tokenizer,
        latents=settings.latents,
        depth=settings.depth,
        join=settings.join,
        gate=settings.gate,
        frozen=scratch is None,
    )
    reader.prompts.template = choose_template(template, tokenizer)
    return reader


def open_text_model(lm: str, template: TemplateChoice, precision: Precision) -> LanguageModel | ServedModel:
    """The language model of this name, folder or address, which reads text alone.

    Raises:
        UserError: there is no such model.
    """
    if is_address(lm):
        if template == "chat":
            raise UserError(
                "adapter.template=chat: a server's completions have no chat template; write what it wants around the "
                "question into adapter.prompt"
            )
        if precision != "32":
            raise UserError(f"lm.precision={precision}: the server has its own; leave it out")
        return ServedModel(lm)
    model = LanguageModel(*load(lm, precision=precision))
    model.prompts.template = choose_template(template, model.tokenizer)
    return model


def frozen_parts(reader: LanguageModel | ServedModel) -> dict[str, str]:
    """What of a language model trained weights belong to: hashes of what is frozen, and the template."""
    if isinstance(reader, LanguageModel) and not reader.frozen:
        return {"vocabulary": reader.vocabulary}
    template = reader.template.name
    return {"lm": reader.sha256, **({"template": template} if template != "none" else {})}


@torch.no_grad()
def loss_origin(reader: LanguageModel | ServedModel, lesson: Sequence[Continuation], batch: Batch) -> str:
    """Where a loss that is no number comes from, of a batch: encoder, resampler or language model; empty if unknown."""
    if not isinstance(reader, VideoLanguageModel):
        return ""
    broken = [e.id for e, row in zip(batch.examples, batch.features, strict=True) if not row.isfinite().all()]
    if broken:
        return f"the encoder's tokens of {_first(broken)} hold NaN or infinity"
    names = [name for name, value in reader.named_parameters() if value.requires_grad and not value.isfinite().all()]
    if names:
        return f"the trained weights {names[0]} hold NaN or infinity, try a lower adapter.lr"
    visual = reader.visual_tokens(batch.features[:, 0])
    assert visual is not None
    if broken := [e.id for e, row in zip(batch.examples, visual, strict=True) if not row.isfinite().all()]:
        return f"the resampler makes NaN or infinity of {_first(broken)}"
    for tokens, when in ((None, "without the video, too"), (batch.features[:, 0], "after the video's tokens")):
        likelihoods = reader.loglikelihoods(lesson, tokens)
        broken = [
            batch.examples[c.video].id
            for c, (value, *_) in zip(lesson, likelihoods, strict=True)
            if not math.isfinite(value)
        ]
        if broken:
            return f"the language model gives NaN or infinity for the text of {_first(broken)}, {when}"
    return ""


def _first(ids: Sequence[str]) -> str:
    names = list(dict.fromkeys(ids))
    return f"example {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else "")


def describe(reader: LanguageModel | ServedModel, lm: str, prompt: str) -> dict[str, Any]:
    """What the record holds of a language model, and of the first prompt: `adapter.language_model`."""
    if isinstance(reader, ServedModel):
        about: dict[str, Any] = {"name": reader.name, "sha256": None, "parameters": None, "served_at": reader.base}
    else:
        about = {
            "name": name_of(lm),
            "sha256": reader.sha256,
            "parameters": sum(p.numel() for p in reader.lm.parameters()),
            "architecture": type(reader.lm).__name__,
        }
    return {**about, "template": reader.template.name, "prompt": reader.template(prompt)[:MOST_PROMPT]}


def name_of(lm: str) -> str:
    """The name of a language model for people: of a folder the last part, of one of the hub's cache the model's."""
    if not lm:
        return "demo"
    path = Path(lm).expanduser()
    if not path.exists():
        return lm
    kept = next((part for part in path.absolute().parts if part.startswith("models--")), "")
    return kept.removeprefix("models--").replace("--", "/") or path.absolute().name.removesuffix(".gguf")
