"""Retrieval: texts find their videos, and videos their texts, by the cosine of two vectors; re-ranking."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.func import functional_call

from evalkit.api import (
    Batch,
    Encoder,
    Example,
    FeatureSpec,
    Prediction,
    Task,
    as_texts,
    check_text,
    has_match,
    has_text,
    pooled_dim,
)
from evalkit.demo import LANGUAGE_MODEL
from evalkit.errors import UserError, one_line
from evalkit.heads.adapter import Training
from evalkit.heads.contrastive import check_negatives
from evalkit.heads.head import attention_heads
from evalkit.heads.kernels import AttentionMean
from evalkit.heads.losses import clip_loss
from evalkit.heads.optim import Trained
from evalkit.weights import checkpoint, huggingface

from ._ranked import numbered, ranked, video_name
from ._reranked import Reranker, SequencePool

TEXTS = 64  # embedded at a time

Pool = Literal["attentive", "mean", "pooled"]


@dataclass(frozen=True)
class Settings(Training):
    """Settings of `adapter=retrieval`.

    Attributes:
        train: train even if the encoder embeds text.
        text: the text model: demo, or a local folder or hub id of a transformers model; empty means the encoder's own.
        tune_text: also train the text model.
        pool: pooling of a view's tokens: attentive is learned, mean averages them, pooled is the encoder's own vector,
            with which training starts from the zero-shot similarity if the encoder has a text tower.
        dim: dimension of the embeddings; 0 means the text model's.
        dual_softmax: temperature at which each similarity is multiplied by its softmax over all texts, or videos, of
            the test; 0: off. InternVideo2's code uses it, at 1 for its CLIP. Rankings then depend on the other queries,
            and the result is marked transductive.
        rerank: the first so many videos of each text, and texts of each video, are put in the order of the encoder's
            layers that see both, zero-shot; 0: off. UMT's and InternVideo2's second stages have such layers, and their
            published retrieval is of 128. What they read of each video is stored, and held in memory until all are
            there, in float16: 2.9 MB of InternVideo2 1B with 4 frames, 1.6 MB of UMT-L, and as much for each control.
        temperature: initial temperature of the softmax.
        lr: peak learning rate.
        weight_decay: weight decay of the matrices.
        epochs: passes over the training captions.
        batch_size: captions per training step.
    """

    train: bool = False
    text: str = ""
    tune_text: bool = False
    pool: Pool = "attentive"
    dim: Annotated[int, Ge(0)] = 0
    dual_softmax: Annotated[float, Ge(0)] = 0.0
    rerank: Annotated[int, Ge(0)] = 0
    temperature: Annotated[float, Gt(0)] = 0.07
    lr: Annotated[float, Gt(0)] = 1e-3
    weight_decay: Annotated[float, Ge(0)] = 0.05
    epochs: Annotated[int, Ge(0)] = 30
    batch_size: Annotated[int, Gt(0)] = 128


class OwnWords(nn.Module):
    """An encoder's own text tower: texts -> (B, E)."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, texts: list[str]) -> Tensor:
        return self.encoder.encode_text(texts)  # type: ignore[no-any-return]


class ModelWords(nn.Module):
    """A text model of transformers: texts -> the mean of the last hidden states over each text's tokens (B, E).

    A text longer than the model reads is cut there.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        from transformers import AutoTokenizer
        from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING

        folder = LANGUAGE_MODEL if source == "demo" else Path(source).expanduser()
        if not folder.is_dir():
            folder = huggingface.fetch(source)
        config = huggingface.read_config(folder)
        families: Any = (
            MODEL_FOR_TEXT_ENCODING_MAPPING if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else MODEL_MAPPING
        )
        if hasattr(config, "vision_config"):
            raise UserError(
                f"adapter.text={source}: a {config.model_type} model reads images beside texts; wanted a model of text "
                "alone (bert, mpnet, roberta, t5, a causal one), such as sentence-transformers/all-MiniLM-L6-v2"
            )
        if type(config) not in families:
            raise UserError(f"adapter.text={source}: transformers has no model of the kind {config.model_type}")
        model = families[type(config)]
        # Heads are left out; so is the pooler, which not every checkpoint has.
        pooler = "add_pooling_layer" in inspect.signature(model.__init__).parameters
        bare: dict[str, Any] = {"add_pooling_layer": False} if pooler else {}
        self.model = huggingface.load(model, folder, left_out=".", **bare)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            self.tokenizer.padding_side = "right"  # so that padding moves no token from its position
            if self.tokenizer.pad_token is None:
                self.tokenizer.pad_token = self.tokenizer.eos_token
            self.longest = min(self.tokenizer.model_max_length, getattr(config, "max_position_embeddings", 512))
            with torch.no_grad():
                self.width = self(["a video"]).shape[1]
        except Exception as error:  # a tokenizer's, or a model's that wants more than text
            raise UserError(f"adapter.text={source}: it embeds no text: {one_line(error)}") from error

    def forward(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            as_texts(texts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        ).to(self.model.device)
        mask = tokens["attention_mask"]
        states = self.model(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)  # type: ignore[no-any-return]


class AttentivePool(nn.Module):
    """Tokens (B, T', S, D) -> (B, out): LayerNorm, cross-attention of one learned query, a linear map.

    Folded as in evalkit/heads/bank.py: its keys and values are never made.
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.heads = attention_heads(dim)
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Parameter(torch.randn(dim) * 0.02)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.project = nn.Linear(dim, out)

    def forward(self, tokens: Tensor) -> Tensor:
        dim, split = tokens.shape[-1], (self.heads, -1)
        rows = torch.einsum("hc,hcd->hd", self.query.view(split), self.key.weight.view(*split, dim))
        rows = rows * self.norm.weight * (self.heads / dim) ** 0.5
        mean = AttentionMean.apply(tokens.flatten(1, -2), rows)  # type: ignore[no-untyped-call]
        mean = mean * self.norm.weight + self.norm.bias  # (B, heads, D)
        value = torch.einsum("bhd,hcd->bhc", mean, self.value.weight.view(*split, dim)).flatten(1) + self.value.bias
        return self.project(value)  # type: ignore[no-any-return]


class Mean(nn.Module):
    """Tokens (B, T', S, D) -> (B, D)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.float().mean((1, 2))


class Retrieval(Trained):
    """Vectors of videos and of texts, compared by the cosine: as the encoder gives them, or through trained heads.

    Args:
        words: the text model, frozen; what is trained of it is held beside it, so that it stays as it is.
        video: what is kept of one view (B, ...) -> (B, dim).
        text: a text's vector (B, E) -> (B, dim).
        feature_spec: of the video features.
        settings: of the training; with no epochs, nothing is trained.
        frozen: SHA-256 of a text model that is not the encoder's own, by name.
        apart: search each of the data sets of a mixture by itself.
        reranker: ranks the first of each search again.
        holders: with a reranker, the ids of those examples whose predictions hold their video's sequences.
    """

    def __init__(
        self,
        words: nn.Module,
        video: nn.Module,
        text: nn.Module,
        feature_spec: FeatureSpec,
        settings: Settings,
        frozen: Mapping[str, str],
        apart: bool,
        reranker: Reranker | None = None,
        holders: Collection[str] = (),
    ) -> None:
        super().__init__(settings)
        self.apart, self.dual_softmax = apart, settings.dual_softmax
        self.reranker, self.holders = reranker, holders
        self.transductive = settings.dual_softmax > 0
        self.words, self.video, self.text = words.eval().requires_grad_(False), video, text
        self.feature_spec, self._frozen = feature_spec, dict(frozen)
        tuned = _used(words) if settings.tune_text else {}
        self.tuned = nn.ParameterDict({name.replace(".", "/"): value.clone() for name, value in tuned.items()})
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / settings.temperature)), requires_grad=self.epochs > 0)
        self.known: dict[str, Tensor] = {}  # what the frozen text model gives

    def check_examples(self, count: int) -> None:
        check_negatives(count, self.batch_size)

    @property
    def frozen(self) -> Mapping[str, str]:
        """The hash of a text model that is not the encoder's own."""
        return self._frozen

    def train(self, mode: bool = True) -> Retrieval:
        super().train(mode)
        self.words.eval()
        return self

    def videos(self, features: Tensor) -> Tensor:
        """Unit vectors (B, dim) of features (B, V, ...): the mean over the views."""
        with torch.autocast(features.device.type, enabled=False):
            vectors = self.video(features.to(self.device).flatten(0, 1))
            return F.normalize(vectors.unflatten(0, features.shape[:2]).mean(1), dim=-1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (B, dim) of texts."""
        if self.tuned:
            weights = {name.replace("/", "."): value for name, value in self.tuned.items()}
            vectors = torch.cat([functional_call(self.words, weights, (part,)) for part in _parts(texts)])
        else:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                for part in _parts([text for text in dict.fromkeys(texts) if text not in self.known]):
                    self.known |= zip(part, self.words(part).float().cpu(), strict=True)
            vectors = torch.stack([self.known[text] for text in texts]).to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            return F.normalize(self.text(vectors.float()), dim=-1)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """CLIP's symmetric cross-entropy; captions of the same video in a batch are not used as negatives."""
        video = self.videos(batch.features)
        text = self.texts([example.text for example in batch.examples])
        same = _same(map(video_name, batch.examples)) | _same(example.text for example in batch.examples)
        return clip_loss(video, text, self.log_scale, same)

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The vectors of each example's video and text, and sequences, from which `finalize` makes ranks."""
        assert features is not None
        if self.reranker and not self.known:  # no text was embedded yet: these are the first
            self.reranker.check(features[0, 0], examples[0].text)
        rows, first = numbered((example.video, example.span) for example in examples)
        video, text = self.videos(features[first]).cpu(), self.texts([example.text for example in examples]).cpu()
        sequences = (
            row.cpu().clone() if example.id in self.holders else None
            for example, row in zip(examples, features, strict=True)
        )
        return [Prediction(value) for value in zip(video[rows], text, sequences, strict=True)]

    def finalize(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Prediction]:
        """The rank of each text's video, and of the video's best text; the nearest videos of each text beside them."""
        return ranked(examples, predictions, self.apart, self.dual_softmax, self.reranker)

    def finalize_steps(self, examples: Sequence[Example]) -> int:
        """With a reranker, the pairs of a text and a video that are matched, if none are equally near."""
        if not self.reranker:
            return len(examples)
        searches = [[e for e in examples if e.kind == kind] for kind in {e.kind for e in examples}]
        return sum(
            self.reranker.pairs(len(search), len({*map(video_name, search)}))
            for search in (searches if self.apart else [examples])
        )


def _same(keys: Iterable[Hashable]) -> Tensor:
    """Which keys equal which, (B, B) bool."""
    rows = torch.tensor(numbered(keys)[0])
    return rows[:, None] == rows


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    return (list(texts[i : i + TEXTS]) for i in range(0, len(texts), TEXTS))


def _used(words: nn.Module) -> dict[str, Tensor]:
    """The parameters that a text's vector depends on, by name: of an encoder, its text tower.

    Raises:
        UserError: there are none with a gradient.
    """
    with torch.enable_grad():
        leaves = {name: value.detach().requires_grad_() for name, value in words.named_parameters()}
        vector = functional_call(words, leaves, (["a video"],))
        if not vector.requires_grad:
            raise UserError(
                "adapter.tune_text=true: this encoder's text tower gives no gradient, so it cannot be tuned"
            )
        gradients = torch.autograd.grad(vector.sum(), list(leaves.values()), allow_unused=True)
    return {
        name: value.detach() for (name, value), grad in zip(leaves.items(), gradients, strict=True) if grad is not None
    }


def _check_rerank(encoder: Encoder, settings: Settings) -> None:
    """Refuses to re-rank without layers for it, or beside the dual softmax.

    Raises:
        UserError: of either.
    """
    if not has_match(encoder):
        raise UserError(
            f"adapter.rerank={settings.rerank}: this encoder has no layers that see a video and a text together, as "
            "the second stages of UMT and InternVideo2 have: leave it out"
        )
    if settings.dual_softmax:
        raise UserError(
            f"adapter.rerank={settings.rerank} and adapter.dual_softmax={settings.dual_softmax:g} each order the "
            "candidates: leave one of them out"
        )


def _first_of_videos(task: Task) -> frozenset[str]:
    """The ids of the first example of each video, in each data set of a mixture."""
    first: dict[tuple[str, str], str] = {}
    for example in task.test:
        first.setdefault((example.kind if task.mixture else "", video_name(example)), example.id)
    return frozenset(first.values())


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> Retrieval:
    """Retrieves videos by caption, and captions by video.

    Zero-shot if the encoder embeds text, with its own vectors, averaged over views; re-ranked where `rerank` says so,
    by the mean of the views' logits. Otherwise, or if one of the first three settings asks for it, a pooler and
    projections are trained on top of the frozen encoder and a frozen text model, with CLIP's symmetric loss and a
    learned temperature, on the task's train split. With tune_text=true the text model is trained too, which is LiT as
    in VideoPrism (https://arxiv.org/abs/2402.13217, appendix F).

    Raises:
        UserError: the task has no captions, or there is no text model, or nothing to re-rank with.
    """
    (settings,) = points
    text, pool = settings.text, settings.pool
    if not task.test or not task.test[0].text or not isinstance(task.test[0].target, str | tuple):
        raise UserError("adapter=retrieval needs a task of captions and the videos that they are about; this is none")
    if not text and not has_text(encoder):
        raise UserError(
            "this encoder embeds no text: adapter.text= a folder or hub id of a text model of transformers, such as "
            "sentence-transformers/all-MiniLM-L6-v2, and a pooler is trained to meet it"
        )
    if not text:
        check_text(encoder, task.test[0].text)
    if not (settings.train or text or settings.tune_text) and has_text(encoder):
        if pool != "attentive" or settings.dim:
            raise UserError("adapter.pool and adapter.dim have no effect zero-shot: adapter.train=true trains them")
        untrained = replace(settings, epochs=0, batch_size=1)
        if settings.rerank:
            _check_rerank(encoder, settings)
            seen = OwnWords(encoder), SequencePool(encoder), nn.Identity(), FeatureSpec("sequence", dtype="float16")
            reranker = Reranker(encoder, settings.rerank)
            return Retrieval(*seen, untrained, {}, bool(task.mixture), reranker, _first_of_videos(task))
        own = OwnWords(encoder), nn.Identity(), nn.Identity(), FeatureSpec("pooled")
        return Retrieval(*own, untrained, {}, bool(task.mixture))
    if settings.rerank:
        raise UserError(
            f"adapter.rerank={settings.rerank} is zero-shot alone: leave it out, or adapter.train, adapter.text and "
            "adapter.tune_text"
        )
    words = ModelWords(text) if text else OwnWords(encoder)
    frozen = {"text": checkpoint.sha256(words)} if text else {}
    pooled = pooled_dim(encoder)
    width = words.width if isinstance(words, ModelWords) else pooled
    dim = settings.dim or width
    to_text = nn.Linear(width, dim)
    video: nn.Module
    if pool == "attentive":
        video, feature_spec = AttentivePool(encoder.dim, dim), FeatureSpec("tokens", dtype="float16")
    elif pool == "mean":
        video = nn.Sequential(Mean(), nn.LayerNorm(encoder.dim), nn.Linear(encoder.dim, dim))
        feature_spec = FeatureSpec("tokens", steps=0, dtype="float16")
    else:
        video, feature_spec = nn.Linear(pooled, dim), FeatureSpec("pooled")
    for head in (to_text, video):
        if not text and isinstance(head, nn.Linear):  # both from the encoder's own space
            nn.init.eye_(head.weight)
            nn.init.zeros_(head.bias)
    return Retrieval(words, video, to_text, feature_spec, settings, frozen, bool(task.mixture))
