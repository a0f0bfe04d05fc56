"""VideoPrism's factorized video encoder, with its text tower (LvT) or a classifier.

Blocks are transformers'; what it lacks is here: the text tower's positions and second norms, attention whose memory
stays small on long clips. "VideoPrism: A Foundational Visual Encoder for Video Understanding",
https://arxiv.org/abs/2402.13217, official code https://github.com/google-deepmind/videoprism.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, as_texts
from evalkit.encoders.videoprism.text import Text, TextTower, sinusoid
from evalkit.errors import UserError

_ATTENTION = "evalkit_videoprism"  # the name under which transformers finds _attend
_ROWS = 512  # queries whose logits are in memory at a time


class VideoPrism(nn.Module):
    """Video encoder: (B, T, C, H, W) -> tokens (B, T, S, D) and pooled (B, D).

    The video is float, scaled as `clip.normalize` does. T may be any number and H, W any multiples of the patch:
    positions are interpolated. Pooled is the mean of the tokens; with a text tower's head the video's embedding, of
    length 1 and comparable with the text's, and `frames` (B, T, D) are those of the single frames; with a classifier
    what goes into its last layer.

    Tokens that are masked are left out before the first layer and cost nothing: tokens are (B, 1, kept, D) then, in the
    order of their frames and places, pooled is of these alone, and there are no `frames`.
    """

    interpolates = ("frames", "size")

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

    @property
    def tubelet(self) -> tuple[int, int, int]:
        """Frames, height and width in pixels of what becomes one token."""
        return 1, self.patch, self.patch

    def forward(
        self, video: Tensor, layers: int = 1, mask_ratio: float = 0.0, masked: Tensor | None = None
    ) -> EncoderOutput:
        """The video's tokens and pooled vector.

        Args:
            video: (B, T, 3, H, W), as `clip.normalize` gives it, or uint8 pixels, which are then scaled here.
            mask_ratio: share of the tokens of each frame that is left out, drawn at random.
            masked: (B, T, S) bool, true where a token is left out, as many in each clip; in place of mask_ratio.
            layers: more than 1 also gives the tokens of that many last layers, as their blocks give them but the last,
                which is `tokens`: the temporal layers, and before them the spatial ones.

        Raises:
            ValueError: there is no such shape, or no such number of layers; or masks come with layers.
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
        if video.dtype == torch.uint8:
            video = self.clip.normalize(video)
        if mask_ratio and masked is None:
            places = video.shape[3] * video.shape[4] // patch**2
            order = torch.rand(batch, frames, places, device=video.device).argsort(-1)
            masked = order < min(round(order.shape[-1] * mask_ratio), order.shape[-1] - 1)
        if masked is not None:
            if layers > 1:
                raise ValueError(f"layers={layers}: masked tokens are left out of the last layer's output alone")
            return self._pooled(self._visible(video, masked.to(video.device)))
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
        return self._pooled(tokens, last, frames)

    def _pooled(self, tokens: Tensor, last: tuple[Tensor, ...] = (), frames: int = 0) -> EncoderOutput:
        """The output of tokens (B, T, S, D), with those of the single frames where they are so many."""
        if self.head is None:
            return EncoderOutput(tokens, tokens.mean((1, 2)), last)
        x = tokens.flatten(1, 2)
        for layer in self.auxiliary:
            x = layer(x)
        pooled = self._pool(x)
        if self.classifier is not None:
            return EncoderOutput(tokens, pooled, last)
        single = None
        if frames:
            single = _length_one(self._pool(x.reshape(-1, tokens.shape[2], self.dim)).reshape(len(x), frames, -1))
        return EncoderOutput(tokens, _length_one(pooled), last, single)

    def _visible(self, video: Tensor, masked: Tensor) -> Tensor:
        """The unmasked tokens (B, 1, kept, D) of a video, given a mask (B, T, S)."""
        vision, kept = self.vision, ~masked
        x = vision.spatial_embeddings(video, True)  # (B T, S, D)
        x = vision.layernorm1(_over_kept(vision.spatial_layers, x, kept.flatten(0, 1)))
        x = vision.temporal_embeddings(x, video.shape, True)  # (B S, T, D)
        x = vision.layernorm2(_over_kept(vision.temporal_layers, x, kept.transpose(1, 2).flatten(0, 1)))
        tokens: Tensor = x.unflatten(0, (len(video), -1)).transpose(1, 2)
        return tokens[kept].view(len(video), 1, -1, self.dim)

    def _pool(self, x: Tensor) -> Tensor:
        """Attention pooling by one learned query: tokens (B, N, D) -> (B, D)."""
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
        raise UserError(f"clip.size={clip.size} is not a multiple of the patch's {patch} pixels")
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
    """Attention (B, N, heads, H) with softly capped logits, from query, key and value (B, heads, N, H).

    torch's fused kernels cannot cap, and the logits of 4,096 tokens fill memory: queries are computed some rows at a
    time, which changes nothing, since each has its own softmax. The mask is true where a query sees a key.
    """
    outputs = []
    for start in range(0, query.shape[2], _ROWS):
        rows = slice(start, start + _ROWS)
        logits = (query[:, :, rows] * scaling) @ key.transpose(2, 3)
        if softcap:
            logits = (logits / softcap).tanh() * softcap
        if attention_mask is not None:
            logits = logits.masked_fill(~attention_mask[:, :, rows], torch.finfo(logits.dtype).min)
        weights = logits.softmax(-1, dtype=torch.float32).to(value.dtype)
        outputs.append(F.dropout(weights, dropout, module.training) @ value)
    return torch.cat(outputs, 2).transpose(1, 2), None


def _over_kept(layers: Iterable[nn.Module], x: Tensor, kept: Tensor) -> Tensor:
    """Applies layers to the kept tokens of each row (R, N, D) only; the output for the others is zero.

    Rows are cut to as many tokens as the fullest one keeps; shorter ones are padded with zeros that no token sees.
    """
    rows = kept.any(1).nonzero()[:, 0]
    order = kept[rows].int().argsort(dim=1, descending=True, stable=True)[:, : int(kept.sum(1).max())]
    present = kept[rows].gather(1, order)
    index = order[..., None].expand(-1, -1, x.shape[-1])
    h = x[rows].gather(1, index).masked_fill(~present[..., None], 0)
    mask = None if bool(present.all()) else present[:, None, None].expand(-1, 1, present.shape[1], -1)
    for layer in layers:
        h = layer(h, mask)
    h = h.masked_fill(~present[..., None], 0)
    placed = h.new_zeros(len(rows), *x.shape[1:]).scatter(1, index, h)
    return h.new_zeros(x.shape).index_copy(0, rows, placed)


def _length_one(x: Tensor) -> Tensor:
    """Vectors (..., D) divided by their length, float32."""
    x = x.float()
    return x / (x.square().sum(-1, keepdim=True) + 1e-12).sqrt()
