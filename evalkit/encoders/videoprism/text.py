"""VideoPrism's text tower: canonical text, sentencepiece tokens, one vector per text."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.errors import UserError

# Names of the tokenizer's file in a checkpoint's folder; the first that is there is read.
TOKENIZER_FILES = ("spiece.model", "sentencepiece.model", "tokenizer.model", "tokenizer.json")


@dataclass(frozen=True)
class Text:
    """The text tower: a causal transformer over sentencepiece tokens, read at a class token after the last.

    Attributes:
        vocabulary: pieces of the tokenizer.
        depth: transformer layers.
        heads: attention heads per layer.
        hidden: width of the MLP.
        norm: `pre` has a norm before attention and MLP, `primer_hybrid` (giant) another one after each.
        tokens: longer texts are cut here.
    """

    vocabulary: int = 32000
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    norm: Literal["pre", "primer_hybrid"] = "pre"
    tokens: int = 64


class TextTower(nn.Module):
    """Causal transformer: token ids (B, L) -> one vector per text (B, D)."""

    def __init__(self, model: Any, tokenizer: Path | None) -> None:
        super().__init__()
        self.model = model  # transformers' VideoPrismTextModel
        self.tokenizer = tokenizer

    def forward(self, ids: Tensor, paddings: Tensor) -> Tensor:
        """Embeddings (B, D), not normalized, of ids (B, L) with paddings (B, L), 1 where there is no token."""
        x = self.model.embeddings(ids)  # (B, L + 1, D), the class token last
        seen = F.pad(paddings, (0, 1)) == 0
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        mask = causal & seen[:, None, None, :]  # (B, 1, L + 1, L + 1), true where a query (row) sees a key
        for layer in self.model.layers:
            x = layer(x, mask)
        return self.model.layernorm(x)[:, -1]  # type: ignore[no-any-return]

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids (B, L) and paddings (B, L) of texts in canonical form; L is that of the longest text."""
        rows = [row[: self.model.config.max_position_embeddings] for row in self._pieces(list(map(canonical, texts)))]
        largest = max(map(max, rows))
        if largest >= self.model.config.vocab_size:
            raise UserError(
                f"{self.tokenizer} gives id {largest}, but the text tower knows {self.model.config.vocab_size} pieces: "
                "it is another model's tokenizer; give the right one with encoder.tokenizer="
            )
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        paddings = torch.ones(ids.shape)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            paddings[i, : len(row)] = 0
        return ids, paddings

    def _pieces(self, texts: list[str]) -> list[list[int]]:
        if self.tokenizer is None:
            raise UserError(
                f"this encoder has no tokenizer beside its weights ({' or '.join(TOKENIZER_FILES)}), so it cannot "
                "embed text: give its sentencepiece model with encoder.tokenizer= (VideoPrism's is T5's cc_en.32000)"
            )
        try:
            if self.tokenizer.suffix == ".json":  # what transformers writes
                from tokenizers import Tokenizer

                fast = Tokenizer.from_file(str(self.tokenizer))
                fast.no_padding()
                fast.no_truncation()
                return [encoding.ids for encoding in fast.encode_batch(texts, add_special_tokens=False)]
            from sentencepiece import SentencePieceProcessor

            pieces = SentencePieceProcessor(model_file=str(self.tokenizer))
            return pieces.encode(texts, add_bos=pieces.bos_id() >= 0)  # type: ignore[no-any-return]
        except Exception as error:  # both raise bare ones
            message = " ".join(str(error).split())
            raise UserError(f"cannot read the tokenizer {self.tokenizer}: {message[:200]}") from error


def canonical(text: str) -> str:
    """Text as in the tower's training captions: lower case, spaces for punctuation, one full stop at the end."""
    blanks = str.maketrans(string.punctuation, " " * len(string.punctuation))
    return " ".join(text.translate(blanks).lower().split()) + "."


def sinusoid(length: int, dim: int) -> Tensor:
    """The official text positions (length, dim), whose slowest wave is exactly 10,000 times the fastest."""
    waves = dim // 2
    step = math.log(10_000) / max(waves - 1, 1)
    angles = torch.arange(length).float()[:, None] * torch.exp(torch.arange(waves).float() * -step)
    return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, dim % 2))
