"""The text tower of LongViViT's encoders: BERT over sentencepiece tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from evalkit.errors import UserError


@dataclass(frozen=True)
class Text:
    """Size of the text tower, a BERT whose token states are averaged."""

    vocabulary: int = 30522
    dim: int = 512
    depth: int = 8
    heads: int = 8
    tokens: int = 64


class TextTower(nn.Module):
    """BERT over sentencepiece tokens: one vector per text, the mean over its tokens, projected to the video's width."""

    def __init__(self, text: Text, dim: int, tokenizer: Path | None) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.tokens = text.tokens
        self.tokenizer = tokenizer
        config = BertConfig(
            vocab_size=text.vocabulary,
            hidden_size=text.dim,
            num_hidden_layers=text.depth,
            num_attention_heads=text.heads,
            intermediate_size=4 * text.dim,
            max_position_embeddings=text.tokens,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        self.projection = nn.Linear(text.dim, dim, bias=False)

    def forward(self, texts: list[str]) -> Tensor:
        """Embeddings (B, D) of texts; longer ones are cut at the tower's number of tokens."""
        if self.tokenizer is None:
            raise UserError("this encoder has no tokenizer.model beside its weights, so it cannot embed text")
        from sentencepiece import SentencePieceProcessor

        rows = SentencePieceProcessor(model_file=str(self.tokenizer)).encode(texts)
        rows = [row[: self.tokens] for row in rows]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True)
        ids, mask = (t.to(self.projection.weight.device) for t in (ids, mask))
        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, L, text dim)
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.projection(mean)  # type: ignore[no-any-return]
