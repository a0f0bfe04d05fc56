"""VideoPrism: the factorised video encoder, with its text tower (LvT) or a classifier, from .npz or Hugging Face.

Blocks are transformers'; what it lacks is here: the official archives, the text tower's positions and second norms,
attention that stays small on long clips. "VideoPrism: A Foundational Visual Encoder for Video Understanding",
https://arxiv.org/abs/2402.13217, official code https://github.com/google-deepmind/videoprism.
"""

from __future__ import annotations

import copy
import math
import string
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from evalkit.api import Clip, Encoded, Loading, UserError, as_texts, described
from evalkit.checkpoint import check_names, refuse
from evalkit.pretrained import Weights, load, read_clip, read_config

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
        """Embeddings (B, D), not normalised, of ids (B, L) with paddings (B, L), 1 where there is no token."""
        x = self.model.embeddings(ids)  # (B, L + 1, D), the class token last
        seen = F.pad(paddings, (0, 1)) == 0
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        mask = causal & seen[:, None, None, :]  # (B, 1, L + 1, L + 1), true where a query (row) sees a key
        for layer in self.model.layers:
            x = layer(x, mask)
        return self.model.layernorm(x)[:, -1]  # type: ignore[no-any-return]

    def tokenise(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
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

    The video is float, scaled as `clip.normalise` does. T may be any number and H, W any multiples of the patch:
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

    def forward(self, video: Tensor, layers: int = 1) -> Encoded:
        """The video's tokens and pooled vector.

        Args:
            video: (B, T, 3, H, W), as `clip.normalise` gives it.
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
            return Encoded(tokens, tokens.mean((1, 2)), last)
        x = tokens.flatten(1, 2)
        for layer in self.auxiliary:
            x = layer(x)
        pooled = self._pool(x)
        if self.classifier is not None:
            return Encoded(tokens, pooled, last)
        single = self._pool(x.reshape(batch * frames, -1, self.dim)).reshape(batch, frames, -1)
        return Encoded(tokens, _length_one(pooled), last, _length_one(single))

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
        return self.encode_token_ids(*self.text.tokenise(as_texts(texts)))

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
        model.embeddings.position_embedding = _sinusoid(size.tokens, dim)
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
    return _from_folder(path, tokenizer, weights) if path.is_dir() else _from_archive(path, tokenizer)


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


# --- the official archive --------------------------------------------------------------------------------------------

_Names = dict[str, tuple[str, str]]  # official name -> ours, and the array's axes


class _Array(NamedTuple):
    """What an array of the archive holds.

    Attributes:
        axes: a letter for each axis, the same for lengths that must be equal; digits are the length itself.
        targets: our names; where layers are stacked along the first axis, one for each.
        stacked: whether they are.
    """

    axes: tuple[str, ...]
    targets: tuple[str, ...]
    stacked: bool = False


def _norm(official: str, ours: str) -> _Names:
    return {f"{official}/scale": (f"{ours}.weight", "D"), f"{official}/bias": (f"{ours}.bias", "D")}


def _attention(official: str, ours: str, width: str) -> _Names:
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "post": "o_proj"}
    weights = {f"{official}/{a}/w": (f"{ours}.{b}.weight", f"DN{width}") for a, b in names.items()}
    biases = {f"{official}/{a}/b": (f"{ours}.{b}.bias", f"N{width}") for a, b in names.items()}
    return weights | biases | {f"{official}/post/b": (f"{ours}.o_proj.bias", "D")}


# Axes: D width of the tokens, N heads, H width of a head, M of the MLP, C values of a patch, S places, T frames,
# W width of the pooler's heads, K classes, V vocabulary. The text's own N, H and M are written small.
_VISION: _Names = {
    "patch_projection/linear/kernel": ("spatial_embeddings.patch_embeddings.projection.weight", "CD"),
    "patch_projection/linear/bias": ("spatial_embeddings.patch_embeddings.projection.bias", "D"),
    "spatial_pos_emb/emb_var": ("spatial_embeddings.position_embeddings", "SD"),
    "temporal_pos_emb/emb_var": ("temporal_embeddings.position_embeddings", "TD"),
    **_norm("spatial_ln", "layernorm1"),
    **_norm("temporal_ln", "layernorm2"),
}
_POOLER: _Names = {
    "pooling_attention_query": ("head.pooling_attention_query", "1D"),
    **_attention("pooling_attention", "head", "W"),
    "pooling_attention/per_dim_scale/per_dim_scale": ("head.per_dim_scale", "W"),
    **_norm("pooling_attention_layer_norm", "head_norm"),
}
_CLASSIFIER: _Names = {"linear/kernel": ("classifier.weight", "DK"), "linear/bias": ("classifier.bias", "K")}
_TEXT: _Names = {
    "token_emb/emb_var": ("embeddings.token_embedding.weight", "VD"),
    "cls_emb": ("embeddings.cls_emb", "11D"),
    **_norm("unimodal_ln", "layernorm"),
}
_LAYER: _Names = {
    **_norm("layer_norm", "layernorm_before"),
    **_attention("self_attention", "attention", "H"),
    **_norm("ff_layer/layer_norm", "layernorm_after"),
    "ff_layer/ffn_layer1/linear/kernel": ("mlp.fc1.weight", "DM"),
    "ff_layer/ffn_layer1/linear/bias": ("mlp.fc1.bias", "M"),
    "ff_layer/ffn_layer2/linear/kernel": ("mlp.fc2.weight", "MD"),
    "ff_layer/ffn_layer2/linear/bias": ("mlp.fc2.bias", "D"),
}
_SMALL = str.maketrans("NHM", "nhm")
_TEXT_LAYER: _Names = {name: (ours, axes.translate(_SMALL)) for name, (ours, axes) in _LAYER.items()}
_HYBRID_LAYER: _Names = {
    name.replace("layer_norm", "pre_layer_norm"): (ours.replace("o_proj", "o_proj.0").replace("fc2", "fc2.0"), axes)
    for name, (ours, axes) in _TEXT_LAYER.items()
} | {**_norm("post_layer_norm", "attention.o_proj.1"), **_norm("ff_layer/post_layer_norm", "mlp.fc2.1")}


def _from_archive(path: Path, tokenizer: Path | None) -> VideoPrism:
    arrays = _read(path)
    settings, layout = _layout(arrays)
    sizes = _sizes(layout, arrays)
    wanted = {name: [int(a) if a.isdigit() else sizes.get(a, 1) for a in held.axes] for name, held in layout.items()}
    check_names(_shapes(wanted), _shapes({name: array.shape for name, array in arrays.items()}), path)
    patch, side = math.isqrt(sizes["C"] // 3), math.isqrt(sizes["S"])
    problems = [f"{name} is {tuple(shape)}, which is empty" for name, shape in wanted.items() if not all(shape)]
    problems += [f"{name} holds {array.dtype}, not floats" for name, array in arrays.items() if array.dtype.kind != "f"]
    if sizes["C"] != 3 * patch**2:
        problems.append(f"patch_projection has {sizes['C']} inputs, wanted 3 x a square number")
    if sizes["S"] != side**2:
        problems.append(f"spatial_pos_emb has {sizes['S']} places, wanted a square number")
    for heads, width in ("NH", "nh"):
        if heads in sizes and sizes[heads] * sizes[width] != sizes["D"]:
            problems.append(f"{sizes[heads]} heads of {sizes[width]} do not make a width of {sizes['D']}")
    refuse(problems, path)
    settings |= {"patch": patch, "dim": sizes["D"], "heads": sizes["N"], "hidden": sizes["M"]}
    settings |= {"pooler": sizes["N"] * sizes.get("W", 0), "classes": sizes.get("K", 0)}
    if "text" in settings:
        settings["text"] |= {"vocabulary": sizes["V"], "heads": sizes["n"], "hidden": sizes["m"]}
    with torch.device("meta"):  # random weights would cost time and memory, and every one is replaced
        module = encoder(Clip(frames=sizes["T"], size=patch * side, resize="squash"), tokenizer, **settings)
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    weights: dict[str, Tensor] = {}
    for name, held in layout.items():
        array = arrays.pop(name)  # so that the file's copy goes while ours grows
        for target, part in zip(held.targets, array if held.stacked else array[None], strict=True):
            weights[target] = _tensor(name, part).reshape(shapes[target])
    if module.text is not None:  # what no archive holds
        embeddings = "text.model.embeddings"
        weights[f"{embeddings}.position_embedding"] = _sinusoid(*shapes[f"{embeddings}.position_embedding"])
        weights[f"{embeddings}.position_ids"] = torch.arange(shapes[f"{embeddings}.position_ids"][1])[None]
    module.load_state_dict(weights, assign=True)
    return module


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an archive by name; nothing that it holds is run."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile's, zlib's, numpy's, the disk's
        if "allow_pickle" in str(error):
            raise UserError(f"refused {path}: it holds pickled objects, which can run code; wanted arrays") from error
        raise UserError(f"cannot read weights {path}: {described(error, 200)}") from error


def _layout(arrays: Mapping[str, NDArray[Any]]) -> tuple[dict[str, Any], dict[str, _Array]]:
    """What an archive with arrays of these names is to hold: settings of `encoder`, and every array by its name."""
    settings: dict[str, Any] = {}
    layout: dict[str, _Array] = {}

    def has(*parts: str) -> bool:
        return any(name.startswith(f"params/{part}/") for name in arrays for part in parts)

    def add(names: _Names, official: str, ours: str = "") -> None:
        layout.update({official + name: _Array(tuple(axes), (ours + own,)) for name, (own, axes) in names.items()})

    def add_layers(official: str, ours: str, names: _Names = _LAYER) -> int:
        """Adds a stack of layers, whose number is returned."""
        found = [name.removeprefix(official) for name in arrays if name.startswith(official)]
        numbers = {name.split("/")[0] for name in found if name.startswith("x_layers_")}
        if numbers:
            for i in range(len(numbers)):
                add(names, f"{official}x_layers_{i}/", f"{ours}.{i}.")
            return len(numbers)
        lengths = Counter(len(arrays[official + name]) for name in found if arrays[official + name].ndim)
        depth = lengths.most_common(1)[0][0] if lengths else 1
        for name, (own, axes) in names.items():
            targets = tuple(f"{ours}.{i}.{own}" for i in range(depth))
            layout[f"{official}x_layers/{name}"] = _Array((str(depth), *axes), targets, stacked=True)
        return depth

    contrastive = has("vision_encoder", "auxiliary_encoder", "contrastive_vision_pooler", "text_encoder")
    classifies = not contrastive and has("encoder", "atten_pooler", "projection")
    root = "params/vision_encoder/" if contrastive else "params/encoder/" if classifies else "params/"
    add(_VISION, root, "vision.")
    for part in ("spatial", "temporal"):
        stack = f"{root}{part}_encoder/transformers_stack/"
        settings[f"{part}_depth"] = add_layers(stack, f"vision.{part}_layers")
    if contrastive:
        add(_POOLER, "params/contrastive_vision_pooler/")
    if has("auxiliary_encoder"):
        settings["auxiliary_depth"] = add_layers("params/auxiliary_encoder/transformers_stack/", "auxiliary")
    if has("text_encoder"):
        hybrid = any("/post_layer_norm/" in name for name in arrays if name.startswith("params/text_encoder/"))
        add(_TEXT, "params/text_encoder/", "text.model.")
        stack, names = "params/text_encoder/unimodal_transformer/", _HYBRID_LAYER if hybrid else _TEXT_LAYER
        depth = add_layers(stack, "text.model.layers", names)
        settings["text"] = {"depth": depth, "norm": "primer_hybrid" if hybrid else "pre"}
    if classifies:
        add(_POOLER, "params/atten_pooler/")
        add(_CLASSIFIER, "params/projection/")
    return settings, layout


def _sizes(layout: Mapping[str, _Array], arrays: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """The length of each axis: the one that most arrays have, so that one wrong array is told from the others."""
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for name, held in layout.items():
        if name in arrays and arrays[name].ndim == len(held.axes):
            for axis, length in zip(held.axes, arrays[name].shape, strict=True):
                votes[axis][length] += 1
    return {axis: found.most_common(1)[0][0] for axis, found in votes.items()}


def _shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    return {name: torch.empty(*shape, device="meta") for name, shape in shapes.items()}


def _tensor(name: str, array: NDArray[Any]) -> Tensor:
    """An official array with its axes in torch's order."""
    if name.endswith("patch_projection/linear/kernel"):  # pixels by row, column and channel, then the width
        side = math.isqrt(len(array) // 3)
        array = array.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)
    elif name.endswith("/kernel") or (name.endswith("/w") and "/post/" not in name):  # inputs come first
        array = array.reshape(len(array), -1).T
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


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


def _sinusoid(length: int, dim: int) -> Tensor:
    """The official text positions (length, dim), whose slowest wave is exactly 10,000 times the fastest."""
    waves = dim // 2
    step = math.log(10_000) / max(waves - 1, 1)
    angles = torch.arange(length).float()[:, None] * torch.exp(torch.arange(waves).float() * -step)
    return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, dim % 2))
