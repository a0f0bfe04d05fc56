"""VideoPrism: the factorized video encoder, with its text tower (LvT) or a classifier, from .npz or Hugging Face.

Blocks are transformers'; what it lacks is here: the official archives, the text tower's positions and second norms,
attention that stays small on long clips. "VideoPrism: A Foundational Visual Encoder for Video Understanding",
https://arxiv.org/abs/2402.13217, official code https://github.com/google-deepmind/videoprism.
"""

from __future__ import annotations

import copy
import math
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, Loading, as_texts
from evalkit.errors import UserError
from evalkit.weights.huggingface import Weights, load, read_clip, read_config

MODEL_TYPES = ("videoprism", "videoprism_vision_model")
SUFFIXES = (".npz",)

_TOKENIZERS = ("spiece.model", "sentencepiece.model", "tokenizer.model", "tokenizer.json")
_ATTENTION = "evalkit_videoprism"  # the name under which transformers finds _attend
_ROWS = 512  # of queries that attend at a time


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
    """Token ids to one vector per text."""

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
        """Ids (B, L) and paddings (B, L) of texts, made canonical, as far as the longest one needs."""
        rows = [row[: self.model.config.max_position_embeddings] for row in self._pieces(list(map(canonical, texts)))]
        most = max(map(max, rows))
        if most >= self.model.config.vocab_size:
            raise UserError(
                f"{self.tokenizer} gives id {most}, but the text tower knows {self.model.config.vocab_size} pieces: it "
                "is another model's tokenizer; give the right one with encoder.tokenizer="
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
                f"this encoder has no tokenizer beside its weights ({' or '.join(_TOKENIZERS)}), so it cannot embed "
                "text: give its sentencepiece model with encoder.tokenizer= (VideoPrism's is T5's cc_en.32000)"
            )
        try:
            if self.tokenizer.suffix == ".json":  # what transformers writes
                from tokenizers import Tokenizer

                fast = Tokenizer.from_file(str(self.tokenizer))
                fast.no_padding()
                fast.no_truncation()
                return [found.ids for found in fast.encode_batch(texts, add_special_tokens=False)]
            from sentencepiece import SentencePieceProcessor

            pieces = SentencePieceProcessor(model_file=str(self.tokenizer))
            return pieces.encode(texts, add_bos=pieces.bos_id() >= 0)  # type: ignore[no-any-return]
        except Exception as error:  # both raise bare ones
            line = " ".join(str(error).split())
            raise UserError(f"cannot read the tokenizer {self.tokenizer}: {line[:200]}") from error


class VideoPrism(nn.Module):
    """Video encoder: (B, T, C, H, W) -> tokens (B, T, S, D) and pooled (B, D).

    The video is float, scaled as `clip.normalize` does. T may be any number and H, W any multiples of the patch:
    positions are interpolated. Pooled is the mean of the tokens; with a text tower's head the video's embedding, of
    length 1 and comparable with the text's, and `frames` (B, T, D) are those of the single frames; with a classifier
    what goes into its last layer.
    """

    def __init__(
        self,
        clip: Clip,
        vision: Any,
        auxiliary: Iterable[nn.Module] = (),
        head: nn.Module | None = None,
        head_norm: nn.Module | None = None,
        classifier: nn.Module | None = None,
        text: TextTower | None = None,
    ) -> None:
        super().__init__()
        from transformers import AttentionInterface

        self.clip, self.dim, self.patch = clip, vision.config.hidden_size, vision.config.tubelet_size[-1]
        self.vision = vision  # transformers' VideoPrismVisionModel
        self.auxiliary = nn.ModuleList(auxiliary)
        self.head, self.head_norm, self.classifier, self.text = head, head_norm, classifier, text
        AttentionInterface.register(_ATTENTION, _attend)
        for module in self.modules():
            config: Any = getattr(module, "config", None)
            if config is not None:
                config._attn_implementation = _ATTENTION

    def forward(self, video: Tensor, layers: int = 1) -> EncoderOutput:
        """The video's tokens and pooled vector.

        Args:
            video: (B, T, 3, H, W), as `clip.normalize` gives it.
            layers: more than 1 also gives the tokens of that many last layers, as their blocks give them but the last,
                which is `tokens`: the temporal layers, and before them the spatial ones.

        Raises:
            ValueError: there is no such shape, or no such number of layers.
        """
        vision, patch = self.vision, self.patch
        depth = len(vision.spatial_layers) + len(vision.temporal_layers)
        if video.ndim != 5 or video.shape[2] != 3 or 0 in video.shape[1:] or any(n % patch for n in video.shape[3:]):
            raise ValueError(
                f"video of shape {tuple(video.shape)}: wanted (B, T, 3, H, W) with T at least 1, H and W multiples of "
                f"{patch}"
            )
        if not 1 <= layers <= depth:
            raise ValueError(f"layers={layers}: this encoder has 1 to {depth}")
        batch, frames = video.shape[:2]
        kept: list[Tensor] = []
        x = vision.spatial_embeddings(video, True)  # (B T, S, D); True: positions are interpolated
        for i, layer in enumerate(vision.spatial_layers):
            x = layer(x)
            if i >= depth - layers:
                kept.append(x.unflatten(0, (batch, frames)))
        x = vision.temporal_embeddings(vision.layernorm1(x), video.shape, True)  # (B S, T, D)
        for i, layer in enumerate(vision.temporal_layers, len(vision.spatial_layers)):
            x = layer(x)
            if i >= depth - layers:
                kept.append(x.unflatten(0, (batch, -1)).transpose(1, 2))
        tokens = vision.layernorm2(x).unflatten(0, (batch, -1)).transpose(1, 2).contiguous()
        last = (*kept[:-1], tokens) if layers > 1 else ()
        if self.head is None:
            return EncoderOutput(tokens, tokens.mean((1, 2)), last)
        x = tokens.flatten(1, 2)
        for layer in self.auxiliary:
            x = layer(x)
        pooled = self._pool(x)
        if self.classifier is not None:
            return EncoderOutput(tokens, pooled, last)
        single = self._pool(x.reshape(batch * frames, -1, self.dim)).reshape(batch, frames, -1)
        return EncoderOutput(tokens, _length_one(pooled), last, _length_one(single))

    def _pool(self, x: Tensor) -> Tensor:
        """(B, D) from tokens (B, N, D), by attention with one learned query."""
        assert self.head is not None and self.head_norm is not None
        return self.head_norm(self.head(x)[0][:, 0])  # type: ignore[no-any-return]

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits (B, classes) from pooled (B, D).

        Raises:
            UserError: the weights hold no classifier.
        """
        if self.classifier is None:
            raise UserError("this VideoPrism has no classifier: its weights are the encoder's alone")
        return self.classifier(pooled)  # type: ignore[no-any-return]

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embeddings (B, D) of texts, of length 1 and comparable with pooled by their dot product.

        Texts are made canonical as in training: lower case, no punctuation, a full stop at the end.

        Raises:
            UserError: there is no text tower, or no tokenizer that fits it.
        """
        if self.text is None:
            raise UserError("this encoder has no text tower, so it cannot embed text")
        return self.encode_token_ids(*self.text.tokenize(as_texts(texts)))

    def encode_token_ids(self, ids: Tensor, paddings: Tensor) -> Tensor:
        """Embeddings (B, D) as `encode_text` gives them.

        Args:
            ids: (B, L) of the tokenizer; 0 where there is no token.
            paddings: (B, L), 1 where there is no token, else 0.

        Raises:
            UserError: there is no text tower.
            ValueError: the shapes differ, or L is more than the tower takes.
        """
        if self.text is None:
            raise UserError("this encoder has no text tower, so it cannot embed text")
        most = self.text.model.config.max_position_embeddings
        if ids.ndim != 2 or ids.shape != paddings.shape or ids.shape[1] > most:
            raise ValueError(
                f"ids of shape {tuple(ids.shape)} with paddings of shape {tuple(paddings.shape)}: wanted (B, L) for "
                f"both, L at most {most}"
            )
        device = self.vision.layernorm1.weight.device
        return _length_one(self.text(ids.to(device), paddings.to(device)))


def canonical(text: str) -> str:
    """A text as the text tower was trained on it: lower case, spaces for punctuation, one full stop at the end."""
    blanks = str.maketrans(string.punctuation, " " * len(string.punctuation))
    return " ".join(text.translate(blanks).lower().split()) + "."


def encoder(
    clip: Clip,
    tokenizer: Path | None = None,
    *,
    patch: int = 18,
    dim: int = 768,
    heads: int = 12,
    hidden: int = 3072,
    spatial_depth: int = 12,
    temporal_depth: int = 4,
    auxiliary_depth: int = 0,
    pooler: int = 0,
    classes: int = 0,
    text: dict[str, Any] | None = None,
) -> VideoPrism:
    """VideoPrism with random weights.

    Args:
        clip: what the encoder sees; its frames and size set the learned positions.
        tokenizer: of the text tower, a sentencepiece model; None where there is none yet.
        patch: height and width in pixels of what becomes one token.
        dim: width of the tokens.
        heads: attention heads per layer.
        hidden: width of the MLPs.
        spatial_depth: layers that see one frame each.
        temporal_depth: layers that see one place in all frames each.
        auxiliary_depth: layers over all tokens, before the attention pooler.
        pooler: width of the attention pooler (LvT: 4 x dim, classifier: dim); 0: pooled is the mean.
        classes: of the classifier; 0 for none.
        text: the text tower (vocabulary, depth, heads, hidden, norm, tokens); None for no text.

    Raises:
        UserError: numbers that do not divide each other, or heads without a pooler.
    """
    from transformers import VideoPrismTextConfig, VideoPrismVisionConfig
    from transformers.models.videoprism import modeling_videoprism as blocks

    if clip.size % patch:
        raise UserError(f"clip.size={clip.size} is no multiple of the patch's {patch} pixels")
    if dim % heads or pooler % heads:
        raise UserError(f"dim={dim} and pooler={pooler} must be multiples of heads={heads}")
    if (auxiliary_depth or classes or text) and not pooler:
        raise UserError("auxiliary layers, a classifier or a text tower want a pooler: give its width")
    config: Any = VideoPrismVisionConfig(
        image_size=clip.size,
        num_frames=clip.frames,
        tubelet_size=(1, patch, patch),
        hidden_size=dim,
        num_attention_heads=heads,
        intermediate_size=hidden,
        hidden_act="gelu",
        num_spatial_layers=spatial_depth,
        num_temporal_layers=temporal_depth,
        num_auxiliary_layers=auxiliary_depth,
    )
    vision: Any = blocks.VideoPrismVisionModel(config)
    auxiliary = [blocks.VideoPrismLayer(config).apply(vision._init_weights) for _ in range(auxiliary_depth)]
    head = norm = classifier = tower = None
    if pooler:
        wide = copy.deepcopy(config)
        wide.intermediate_size = pooler
        head = blocks.VideoPrismMultiheadAttentionPoolingHead(wide).apply(vision._init_weights)
        norm = blocks.VideoPrismLayerNorm(dim, eps=config.layer_norm_eps).apply(vision._init_weights)
    if classes:
        classifier = nn.Linear(dim, classes).apply(vision._init_weights)
    if text:
        size = Text(**text)
        model: Any = blocks.VideoPrismTextModel(
            VideoPrismTextConfig(
                vocab_size=size.vocabulary,
                hidden_size=dim,
                num_hidden_layers=size.depth,
                num_attention_heads=size.heads,
                intermediate_size=size.hidden,
                max_position_embeddings=size.tokens,
            )
        )
        model.embeddings.position_embedding = sinusoid(size.tokens, dim)
        if size.norm == "primer_hybrid":
            for layer in model.layers:  # a norm of what attention and MLP give, before it is added
                first, second = (blocks.VideoPrismLayerNorm(dim, eps=1e-6).apply(vision._init_weights) for _ in "ab")
                layer.attention.o_proj = nn.Sequential(layer.attention.o_proj, first)
                layer.mlp.fc2 = nn.Sequential(layer.mlp.fc2, second)
        tower = TextTower(model, tokenizer)
    return VideoPrism(clip, vision, auxiliary, head, norm, classifier, tower)


def pretrained(path: Path, loading: Loading, weights: Weights = None) -> VideoPrism:
    """VideoPrism from a Hugging Face folder or an official .npz, every weight in place.

    A folder gives what transformers gives, its text positions included. The official archive gives the official
    positions, which transformers' own differ from.

    Raises:
        UserError: weights are missing, unexpected or of another shape, or the files cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    tokenizer = loading.tokenizer or next((folder / name for name in _TOKENIZERS if (folder / name).is_file()), None)
    if path.is_dir():
        return _from_folder(path, tokenizer, weights)
    from evalkit.encoders.videoprism.archive import load_archive

    return load_archive(path, tokenizer)


def _from_folder(folder: Path, tokenizer: Path | None, weights: Weights) -> VideoPrism:
    from transformers.models.videoprism import modeling_videoprism as models

    config = read_config(folder)
    kind = "VideoPrismClipModel"
    if config.model_type != "videoprism":
        known = ("VideoPrismVideoModel", "VideoPrismForVideoClassification")
        named = [name for name in config.architectures or () if name in known]
        kind = named[0] if named else "VideoPrismVisionModel"
    size = getattr(config, "vision_config", config)
    sides = {size.image_size} if isinstance(size.image_size, int) else set(size.image_size)
    if len(sides) > 1 or size.tubelet_size[0] != 1 or len(set(size.tubelet_size[1:])) > 1:
        raise UserError(
            f"{folder}: image_size {size.image_size} and tubelet_size {size.tubelet_size}: wanted a square, and one "
            "frame by a square"
        )
    clip = read_clip(folder, Clip(frames=size.num_frames, size=sides.pop(), resize="squash"))
    model = load(getattr(models, kind), folder, weights=weights)
    text = TextTower(model.text_model, tokenizer) if kind == "VideoPrismClipModel" else None
    video = model.video_model if text else model
    return VideoPrism(
        clip,
        getattr(video, "vision_model", video),
        getattr(video, "auxiliary_layers", ()),
        getattr(video, "head", None),
        getattr(video, "head_layernorm", None),
        getattr(video, "classifier", None),
        text,
    )


# --- arithmetic that transformers has not, or has differently --------------------------------------------------------


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float = 1.0,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention (B, N, heads, H) whose logits are softly capped, from query, key and value (B, heads, N, H).

    No fused kernel of torch's caps, and the logits of 4,096 tokens fill memory: queries go some rows at a time, which
    changes nothing, for each has its own softmax. The mask is true where a query sees a key.
    """
    found = []
    for start in range(0, query.shape[2], _ROWS):
        rows = slice(start, start + _ROWS)
        logits = (query[:, :, rows] * scaling) @ key.transpose(2, 3)
        if softcap:
            logits = (logits / softcap).tanh() * softcap
        if attention_mask is not None:
            logits = logits.masked_fill(~attention_mask[:, :, rows], torch.finfo(logits.dtype).min)
        weights = logits.softmax(-1, dtype=torch.float32).to(value.dtype)
        found.append(F.dropout(weights, dropout, module.training) @ value)
    return torch.cat(found, 2).transpose(1, 2), None


def _length_one(x: Tensor) -> Tensor:
    """Vectors (..., D) divided by their length, float32."""
    x = x.float()
    return x / (x.square().sum(-1, keepdim=True) + 1e-12).sqrt()


def sinusoid(length: int, dim: int) -> Tensor:
    """The official text positions (length, dim), whose slowest wave is exactly 10,000 times the fastest."""
    waves = dim // 2
    step = math.log(10_000) / max(waves - 1, 1)
    angles = torch.arange(length).float()[:, None] * torch.exp(torch.arange(waves).float() * -step)
    return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, dim % 2))
