"""Text towers: BERT's first layers (UMT, InternVideo2 stage 2), MobileCLIP's and LLaMA's (InternVideo2 CLIP).

transformers has BERT and LLaMA. Modules are named as in the authors' files. Which tokenizer a tower was trained with
is not in them: BERT's vocabulary (vocab.txt of bert-base-uncased, which bert-large-uncased shares), CLIP's tokenizer,
and the sentencepiece model of InternVL-C are files that `encoder.tokenizer=` names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.encoders.hf_image_text import read_tokenizer
from evalkit.errors import UserError, one_line

_CLEANED = str.maketrans({**dict.fromkeys(",.'!?\"()*#:;~", ""), "-": " ", "/": " "})
HEAD = 64  # width of a head of BERT and of MobileCLIP
LLAMA_HEAD = 128
PROMPT = "summarize:"  # before every text of LLaMA's, in the authors' code


class BERT(nn.Module):
    """Texts -> (B, E): the first token's state after BERT's layers that see no video, projected.

    The authors' BERT has further layers, which look at a video (`fusion.py`); text alone does not go through them.

    Args:
        dim: E.
        width: of the layers.
        depth: how many there are.
        hidden: width of their MLPs.
        vocabulary: word pieces.
        positions: tokens that there are positions for.
        tokens: longer texts are cut here.
        tokenizer: BERT's vocabulary, one word piece in each line, or a tokenizer.json; or a folder with one of them.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        depth: int,
        hidden: int,
        vocabulary: int,
        positions: int,
        tokens: int,
        tokenizer: Path | None,
    ) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=max(1, width // HEAD),
            intermediate_size=hidden,
            max_position_embeddings=positions,
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        self.text_proj = nn.Linear(width, dim)
        self.dim, self.tokens, self.tokenizer, self.vocabulary = dim, tokens, tokenizer, vocabulary
        self._read: Any = None

    def recompute(self) -> None:
        """Nothing: numbers of tokens and segments are given with every text."""

    def states(self, texts: list[str]) -> list[Tensor]:
        """States (N, width) of the tokens of each text, after the last layer."""
        if self._read is None:
            self._read = _word_pieces(self.tokenizer, self.tokens, self.vocabulary)
        rows = self._read.encode_batch(texts)
        ids, mask = (
            torch.tensor([getattr(row, name) for row in rows], device=self.text_proj.weight.device)
            for name in ("ids", "attention_mask")
        )
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        states = self.bert(
            input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids), position_ids=places
        ).last_hidden_state
        return [row[:length] for row, length in zip(states, mask.sum(1).tolist(), strict=True)]

    def forward(self, texts: list[str]) -> Tensor:
        first = torch.stack([states[0] for states in self.states(texts)])
        return self.text_proj(first)  # type: ignore[no-any-return]


class Layer(nn.Module):
    """One causal layer of MobileCLIP's text tower; norms, linear maps and their places are named by numbers."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        attention = nn.ModuleDict({"qkv_proj": nn.Linear(width, 3 * width), "out_proj": nn.Linear(width, width)})
        self.pre_norm_mha = nn.ModuleList([nn.LayerNorm(width), attention])
        self.pre_norm_ffn = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, width)
        )
        self.heads = max(1, width // HEAD)

    def forward(self, x: Tensor) -> Tensor:
        norm, attention = self.pre_norm_mha
        parts = attention["qkv_proj"](norm(x)).chunk(3, -1)  # type: ignore[index]
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)
        x = x + attention["out_proj"](seen)  # type: ignore[index]
        return x + self.pre_norm_ffn(x)  # type: ignore[no-any-return]


class _Positions(nn.Module):
    """Holds positions (1, 1, L, width) by the name that the files have for them."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Module()
        self.pos_embed.pos_embed = nn.Parameter(torch.randn(1, 1, tokens, width) * width**-0.5)


class MobileCLIP(nn.Module):
    """Texts -> (B, E): a causal transformer over CLIP's tokens, read at the end of the text.

    Args:
        dim: E.
        width: of the layers.
        depth: how many there are.
        hidden: width of their MLPs.
        vocabulary: tokens of the tokenizer; the last one ends a text.
        tokens: longer texts are cut here.
        tokenizer: CLIP's, as transformers saves it: a folder, or a tokenizer.json.
    """

    def __init__(
        self, dim: int, width: int, depth: int, hidden: int, vocabulary: int, tokens: int, tokenizer: Path | None
    ) -> None:
        super().__init__()
        self.embedding_layer = nn.Embedding(vocabulary, width)
        self.positional_embedding = _Positions(tokens, width)
        self.transformer = nn.ModuleList(Layer(width, hidden) for _ in range(depth))
        self.final_layer_norm = nn.LayerNorm(width)
        self.projection_layer = nn.Parameter(torch.randn(width, dim) * width**-0.5)
        self.dim, self.tokens, self.tokenizer = dim, tokens, tokenizer
        self._read: Any = None

    def recompute(self) -> None:
        """Nothing: files hold all of it."""

    def forward(self, texts: list[str]) -> Tensor:
        if self._read is None:
            self._read = read_tokenizer(self.tokenizer)
        ids = self._read(texts, padding=True, truncation=True, max_length=self.tokens, return_tensors="pt")["input_ids"]
        ids = ids.to(self.projection_layer.device)
        _check_ids(ids, self.embedding_layer.num_embeddings, self.tokenizer)
        positions = self.positional_embedding.pos_embed.pos_embed[:, 0, : ids.shape[1]]  # type: ignore[index]
        x = self.embedding_layer(ids) + positions
        for layer in self.transformer:
            x = layer(x)
        ends = ids.argmax(-1)  # the first token with the largest number
        return self.final_layer_norm(x)[torch.arange(len(ids)), ends] @ self.projection_layer  # type: ignore[no-any-return]


class LLaMA(nn.Module):
    """Texts -> (B, E): LLaMA's state at the end of "summarize:" and the text, projected.

    Args:
        dim: E.
        width: of the layers.
        depth: how many there are.
        hidden: width of their MLPs.
        vocabulary: pieces of the tokenizer.
        tokens: longer texts are cut here.
        tokenizer: a sentencepiece model, or a folder with one, tokenizer.model.
    """

    def __init__(
        self, dim: int, width: int, depth: int, hidden: int, vocabulary: int, tokens: int, tokenizer: Path | None
    ) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaModel

        heads = max(1, width // LLAMA_HEAD)
        self.transformer = LlamaModel(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=width,
                intermediate_size=hidden,
                num_hidden_layers=depth,
                num_attention_heads=heads,
                num_key_value_heads=heads,
                rms_norm_eps=1e-6,
                use_cache=False,
            )
        )
        self.text_projection = nn.Parameter(torch.randn(width, dim) * width**-0.5)
        self.dim, self.tokens, self.tokenizer = dim, tokens, tokenizer
        self._read: Any = None

    def recompute(self) -> None:
        """Make the rotations' angles again."""
        rotations: Any = type(self.transformer.rotary_emb)
        self.transformer.rotary_emb = rotations(self.transformer.config)

    def forward(self, texts: list[str]) -> Tensor:
        if self._read is None:
            self._read = _pieces(self.tokenizer)
        pieces, device = self._read, self.text_projection.device
        rows = [[pieces.bos_id(), *pieces.encode(PROMPT + text)[: self.tokens - 2], pieces.eos_id()] for text in texts]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
        _check_ids(ids, self.transformer.config.vocab_size, self.tokenizer)
        ids, ends = ids.to(device), torch.tensor([len(row) - 1 for row in rows], device=device)
        states = self.transformer(input_ids=ids).last_hidden_state  # causal: what pads comes after, and is not seen
        return states[torch.arange(len(rows), device=device), ends] @ self.text_projection  # type: ignore[no-any-return]


TOWERS: dict[str, Any] = {"bert": BERT, "mobileclip": MobileCLIP, "llama": LLaMA}


def cleaned(text: str) -> str:
    """A text as all towers were trained and are evaluated with it: in lower case, without most of its punctuation."""
    text = text.lower().translate(_CLEANED).replace("<person>", "person")
    return re.sub(r"\s{2,}", " ", text).strip()


def make(settings: dict[str, Any], tokenizer: Path | None) -> nn.Module:
    """The tower that settings describe, with random weights.

    Raises:
        ValueError: there is no such kind.
    """
    kind = settings.pop("kind", None)
    if kind not in TOWERS:
        raise ValueError(f"text.kind={kind!r}: wanted one of {', '.join(TOWERS)}")
    return TOWERS[kind](**settings, tokenizer=tokenizer)  # type: ignore[no-any-return]


def _word_pieces(place: Path | None, tokens: int, known: int) -> Any:
    """BERT's tokenizer, which cuts texts and pads them.

    Raises:
        UserError: there is none, or it cannot be read, or it is another model's.
    """
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    if place is not None and place.is_dir():
        place = next((file for name in ("vocab.txt", "tokenizer.json") if (file := place / name).is_file()), place)
    if place is None or not place.is_file():
        raise UserError(
            "this encoder has no tokenizer, so it cannot embed text: encoder.tokenizer= BERT's vocabulary (vocab.txt "
            "of bert-base-uncased), or a folder with it"
        )
    try:
        read: Any = Tokenizer.from_file(str(place)) if place.suffix == ".json" else BertWordPieceTokenizer(str(place))
        read.enable_truncation(tokens)
        read.enable_padding()
        size = read.get_vocab_size()
    except Exception as error:  # the library's own
        raise UserError(f"cannot read the tokenizer {place}: {one_line(error, 200)}") from error
    if size > known:
        raise UserError(f"{place} has {size:,} word pieces, and the text tower knows {known:,}: it is another model's")
    return read


def _pieces(place: Path | None) -> Any:
    """A sentencepiece model.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if place is not None and place.is_dir():
        place = place / "tokenizer.model"
    if place is None or not place.is_file():
        raise UserError(
            "this encoder has no tokenizer, so it cannot embed text: encoder.tokenizer= the sentencepiece model of "
            "InternVL-C's text tower (tokenizer.model of chinese_alpaca_lora_7b), or a folder with it"
        )
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_file=str(place))
    except Exception as error:  # its own
        raise UserError(f"cannot read the tokenizer {place}: {one_line(error, 200)}") from error


def _check_ids(ids: Tensor, known: int, place: object) -> None:
    """Refuse tokens that the tower does not know.

    Raises:
        UserError: there are.
    """
    if int(ids.max()) >= known:
        raise UserError(
            f"{place} gives token {int(ids.max())}, and the text tower knows {known:,}: it is another model's"
        )
