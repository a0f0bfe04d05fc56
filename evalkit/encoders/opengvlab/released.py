"""The files that OpenGVLab publishes, read strictly: which model they hold is told by names and shapes.

A file may hold an encoder alone (VideoMAE v2 and UMT as `encoder.` of a masked autoencoder, or with a classifier;
InternVideo2's first stage and its distilled sizes), or `vision_encoder.` and `text_encoder.` (UMT's and InternVideo2's
second stage, with BERT's layers that look at a video and their head). Decoders and teachers are left out. InternVideo2
CLIP is published as what its training changed; `encoder.parts=` names the files with the rest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evalkit.api import Clip, Loading
from evalkit.encoders.opengvlab.model import VideoTransformer, encoder
from evalkit.errors import UserError, one_line
from evalkit.heads.own_head import OwnHead
from evalkit.weights import checkpoint, strict
from evalkit.weights.checkpoint import Weights
from evalkit.weights.preprocessor import IMAGENET

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
HEADS = {(384, 12): 6, (768, 12): 12, (1024, 24): 16, (1280, 32): 16, (1408, 40): 16, (3200, 48): 25}  # by width, depth
# Layers of the text towers by kind and width; of BERT those that see the text alone.
TEXT_DEPTHS = {("bert", 768): 9, ("bert", 1024): 19, ("mobileclip", 512): 12, ("llama", 4096): 32}
FUSION_DEPTHS = {768: 3, 1024: 5}  # layers of BERT that look at a video, by their width
SIZES = (224, 336, 384, 448)  # pixels that published positions were made for
TUBES = 8  # in time, of the sines and cosines of VideoMAE v2 (16 frames in twos) and UMT (8 frames)
TUBES_2 = 4  # of UMT's second stage
TEXT_TOKENS = {"umt": 32, "internvideo2": 40}  # that the authors cut texts at in training
FEWEST_TOKENS = 3  # a text's start, a word and the end
LLAMA_TOKENS = 80
LORA = 32 / 16  # alpha over rank, of InternVL-C's text tower

_VISION, _TEXT = "vision_encoder.", "text_encoder."
# What is not run: decoders and their positions, those of still images, teachers and the words' head.
_LEFT_OUT = re.compile(
    r"(vision_encoder\.)?((\w*clip_|mae_)?decoder|encoder_to_decoder|clip_teacher)\.|text_encoder\.cls\."
    r"|(vision_encoder\.)?(mask_token|(clip_|mae_)?(img_)?pos_embed|temp)$"
    r"|text_encoder\.bert\.embeddings\.position_ids$|.*\.rotary_emb\.inv_freq$|logit_scale$"
)
_KEPT_POSITIONS = f"{_VISION}pos_embed"
_BESIDE_TEXT = (
    r"(vision_proj|text_proj|vision_align|vision_encoder\.pool_norm|fusion)\."  # of no use without a text tower
)


def recognizes(weights: Mapping[str, Tensor]) -> bool:
    """Whether names and shapes are those of a file of these authors; values are not looked at.

    Its attention keeps the biases of queries and values apart, over tubelets of a video, or it pools by attention.
    """
    patches = [value for name, value in weights.items() if name.endswith("patch_embed.proj.weight")]
    biases = any(name.endswith("blocks.0.attn.q_bias") for name in weights)
    of_video = bool(patches) and patches[0].ndim == 5
    return (biases and of_video) or any(name.endswith("clip_projector.cross_attn.q_bias") for name in weights)


def pretrained(path: Path, loading: Loading, weights: object = None) -> VideoTransformer:
    """Load the encoder of a released file strictly.

    No file states its clip: 16 frames of VideoMAE v2, 8 of UMT, 4 of its second stage, 8 of InternVideo2 CLIP, else as
    many as its positions were made for; 224 pixels, or what stored positions were made for, with ImageNet's mean and
    std. With a text tower, frames are squashed to a square by bicubics, as in the authors' evaluations, else cut.

    Args:
        path: the file.
        loading: `parts` are the files that hold what it lacks, `heads` is for widths that are not published, and
            `text_tokens` for texts that are longer than those of training.
        weights: not used: these files come alone.

    Raises:
        UserError: weights are missing, unexpected or of another shape, or it is another model.
    """
    held = _canonical(_read(path, loading, loading.prefix))
    if not any(name.startswith(f"{_VISION}patch_embed.") for name in held):
        held = _joined(held, path, loading)
    elif loading.parts:
        raise UserError(
            f"encoder.parts={_listed(loading.parts)} has no effect on {path}, which is complete: leave it out"
        )
    if not any(name.startswith(_TEXT) for name in held):
        held = Weights({name: value for name, value in held.items() if not re.match(_BESIDE_TEXT, name)})
    classifier = {name: held.pop(name) for name in list(held) if re.match(rf"{_VISION}(head|fc_norm)\.", name)}
    try:
        settings, clip = _settings(held, path, loading)
    except (LookupError, TypeError, ValueError) as error:  # an array that the sizes are read off is missing or none
        raise UserError(f"{path} holds no whole model of its authors: {one_line(error)}") from error
    with torch.device("meta"):  # a billion random numbers would only be overwritten
        module = encoder(clip, loading.tokenizer, **settings)
    named = Weights({_own_name(name): value for name, value in held.items()})
    strict.check_names(module.state_dict(), named, path)
    strict.check_finite(named, path)
    module.to_empty(device="cpu")
    module.load_state_dict(named)
    module.recompute()
    if any(name.startswith(f"{_VISION}head.") for name in classifier):
        epsilon = 1e-5 if module.kind == "internvideo2" else 1e-6
        module.own_head = partial(_own_head, classifier, epsilon, path)  # type: ignore[assignment]
    return module


def _read(path: Path, loading: Loading, prefix: str = "", lora: bool = False) -> Weights:
    """A file's weights without what training in parallel puts before the names."""
    weights = checkpoint.read_weights(path, prefix=prefix, trust=loading.trust, lora=lora)
    return Weights({re.sub(r"^(module|_orig_mod)\.", "", name): value for name, value in weights.items()})


def _canonical(weights: Mapping[str, Tensor]) -> Weights:
    """Weights named as in the files of a second stage, `vision_encoder.`, `text_encoder.` and projections.

    BERT's layers from the first on that looks at a video, and their head, are `fusion.`, apart from the text tower.
    """
    if any(name.startswith((_VISION, _TEXT)) for name in weights):
        named = {name.replace(f"{_VISION}encoder.", _VISION): value for name, value in weights.items()}
        named = {
            re.sub(r"^text_encoder\.(?=embeddings\.|encoder\.)", f"{_TEXT}bert.", name): value
            for name, value in named.items()
        }
    elif "text_projection" in weights and any(name.startswith("transformer.layers.") for name in weights):
        named = {  # InternVL-C, of which the text tower counts
            f"{_TEXT}{name}": value
            for name, value in weights.items()
            if name.startswith("transformer.") or name == "text_projection"
        }
    else:
        named = {
            _VISION + re.sub(r"^(model\.)?((encoder|backbone)\.)?", "", name): value for name, value in weights.items()
        }
    layer = rf"{_TEXT}bert\.encoder\.layer\.(\d+)\."
    of_videos = [int(match[1]) for name in named if (match := re.match(rf"{layer}crossattention\.", name))]
    deepest = min(of_videos, default=math.inf)

    def placed(name: str) -> str:
        match = re.match(layer, name)
        if match and int(match[1]) >= deepest:
            return f"fusion.layer.{int(match[1]) - int(deepest)}.{name[match.end() :]}"
        return re.sub(r"^itm_head\.", "fusion.itm_head.", name)

    return Weights(
        {placed(name): value for name, value in named.items() if name == _KEPT_POSITIONS or not _LEFT_OUT.match(name)}
    )


def _joined(changed: Weights, path: Path, loading: Loading) -> Weights:
    """InternVideo2 CLIP: what its training changed, and the rest of both towers from other files.

    Raises:
        UserError: the files do not hold the rest.
    """
    small = any(name.startswith("vision_align.") for name in changed)
    joined: dict[str, Tensor] = {}
    for part in loading.parts:
        found = _canonical(_read(part, loading, lora=True))
        wanted = {
            name: value
            for name, value in found.items()
            if (name.startswith(_VISION) and not re.match(rf"{_VISION}(head|fc_norm)\.", name))
            or (name.startswith(_TEXT) and not name.startswith(f"{_TEXT}bert."))
        }
        joined |= wanted
    joined |= changed
    if f"{_VISION}patch_embed.proj.weight" not in joined:
        of = "its size's distilled file (stage1/.../pytorch_model.bin)" if small else "InternVideo2's second stage"
        text = "MobileCLIP-B's (mobileclip_blt.pt)" if small else "InternVL-C's (internvl_c_13b_224px.pth)"
        raise UserError(
            f"{path} holds what InternVideo2 CLIP's training changed, and no encoder: give encoder.parts=[VISION] or "
            f"[VISION,TEXT] with {of} and, to embed texts, {text}"
        )
    return Weights(_merged(joined))


def _merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with what LoRA adds to them added, and those of one dtype."""
    merged = {re.sub(r"\.base_layer\.", ".", name): value for name, value in weights.items() if ".lora_" not in name}
    for name, value in weights.items():
        if match := re.fullmatch(r"(.*)\.lora_B(\.\w+)?\.weight", name):
            down = weights[f"{match[1]}.lora_A{match[2] or ''}.weight"]
            target = f"{match[1]}.weight"
            merged[target] = merged[target].float() + LORA * value.float() @ down.float()
    return merged


def _settings(held: Mapping[str, Tensor], path: Path, loading: Loading) -> tuple[dict[str, Any], Clip]:
    """Settings of the encoder and its clip, read off the arrays.

    Raises:
        UserError: they are of no model of these authors, or its heads or the grid of its positions are not known.
    """
    vision = {name.removeprefix(_VISION): value for name, value in held.items() if name.startswith(_VISION)}
    patch, first = vision.get("patch_embed.proj.weight"), vision.get("blocks.0.mlp.fc1.weight")
    internvideo2 = "blocks.0.attn.q_norm.weight" in vision
    if patch is None or patch.ndim != 5 or first is None or not (internvideo2 or "blocks.0.attn.q_bias" in vision):
        raise UserError(
            f"{path} holds no VideoMAE v2, UMT or InternVideo2: wanted patch_embed.proj.weight over tubelets, "
            f"blocks.0.attn.q_bias or q_norm, and so on, found {', '.join(sorted(held)[:3])[:200] or 'nothing'}"
        )
    dim, _, *tubelet = patch.shape
    depth = _layers(vision, "blocks.")
    heads = strict.attention_heads(path, dim, depth, HEADS, loading.heads)
    kind = "internvideo2" if internvideo2 else "videomae_v2" if tubelet[0] > 1 else "umt"
    stored = vision.get("pos_embed")
    side = SIZES[0] // tubelet[1]
    text = _text_settings(held, kind)
    published = text and TEXT_DEPTHS.get((text["kind"], text["width"]))
    if text and published and text["depth"] != published and not loading.heads:
        raise UserError(
            f"{path}: its text tower is {text['depth']} layers deep, and those of its width that are published are "
            f"{published}: get the file again; where it is meant so, encoder.heads={heads} says that it is your own"
        )
    if loading.text_tokens:
        text = _cut(text, loading.text_tokens, path)
    fused = _fusion_depth(held, text, path, loading)
    times = TUBES if text is None else TUBES_2
    grid = (times, side, side) if stored is None else _grid(stored.shape[1] - internvideo2, tubelet[1], path)
    settings: dict[str, Any] = {
        "model_type": kind,
        "dim": dim,
        "depth": depth,
        "heads": heads,
        "hidden": len(first),
        "tubelet": tuple(tubelet),
        "grid": grid,
        "learned": stored is not None,
        "norm": "norm.weight" in vision,
    }
    if internvideo2:
        settings["pooled"] = len(vision.get("clip_projector.cross_attn.proj.bias", ()))
    clip = replace(IMAGENET, frames=grid[0] * tubelet[0], size=grid[1] * tubelet[1])
    if text is not None or "vision_align.1.weight" in held:
        clip = replace(clip, resize="squash", interpolation="bicubic")
    if text is not None and text["kind"] != "bert":
        clip = replace(clip, frames=8)  # its second stage had 4, and it 8
    return settings | {"text": text, "fusion": fused}, clip


def _fusion_depth(held: Mapping[str, Tensor], text: Mapping[str, Any] | None, path: Path, loading: Loading) -> int:
    """How many layers look at a video; 0 where there are none.

    Raises:
        UserError: the file has layers without their head or a head without layers, or fewer than are published.
    """
    depth, head = _layers(held, "fusion.layer."), any(name.startswith("fusion.itm_head.") for name in held)
    published = FUSION_DEPTHS.get(text["width"]) if text else None
    if bool(depth) != head:
        there, lacks = f"{depth} layers with crossattention", "itm_head"
        there, lacks = (there, lacks) if depth else (lacks, "layers with crossattention")
        raise UserError(f"{path} has {there} and no {lacks}, which go together: get the file again")
    if depth and published and depth != published and not loading.heads:
        raise UserError(
            f"{path} has {depth} layers with crossattention, and those of their width that are published are "
            f"{published}: get the file again; where it is meant so, encoder.heads= says that it is your own"
        )
    return depth


def _text_settings(held: Mapping[str, Tensor], kind: str) -> dict[str, Any] | None:
    """Kind and sizes of the text tower, None where there is none."""
    text = {name.removeprefix(_TEXT): value for name, value in held.items() if name.startswith(_TEXT)}
    if (words := text.get("bert.embeddings.word_embeddings.weight")) is not None:
        return {
            "kind": "bert",
            "dim": len(held.get("text_proj.weight", ())),
            "width": words.shape[1],
            "depth": _layers(text, "bert.encoder.layer."),
            "hidden": len(text["bert.encoder.layer.0.intermediate.dense.weight"]),
            "vocabulary": len(words),
            "positions": len(text["bert.embeddings.position_embeddings.weight"]),
            "tokens": TEXT_TOKENS[kind],
        }
    if (words := text.get("embedding_layer.weight")) is not None:
        return {
            "kind": "mobileclip",
            "dim": text["projection_layer"].shape[1],
            "width": words.shape[1],
            "depth": _layers(text, "transformer."),
            "hidden": len(text["transformer.0.pre_norm_ffn.1.weight"]),
            "vocabulary": len(words),
            "tokens": text["positional_embedding.pos_embed.pos_embed"].shape[2],
        }
    if (words := text.get("transformer.embed_tokens.weight")) is not None:
        return {
            "kind": "llama",
            "dim": text["text_projection"].shape[1],
            "width": words.shape[1],
            "depth": _layers(text, "transformer.layers."),
            "hidden": len(text["transformer.layers.0.mlp.gate_proj.weight"]),
            "vocabulary": len(words),
            "tokens": LLAMA_TOKENS,
        }
    return None


def _cut(text: dict[str, Any] | None, tokens: int, path: Path) -> dict[str, Any]:
    """Settings of a text tower that cuts texts at so many tokens.

    Raises:
        UserError: there is no BERT, or it has positions for fewer.
    """
    if text is None or text["kind"] != "bert":
        raise UserError(f"encoder.text_tokens={tokens} has no effect on {path}, which has no BERT: leave it out")
    if not FEWEST_TOKENS <= tokens <= text["positions"]:
        raise UserError(f"encoder.text_tokens={tokens}: wanted {FEWEST_TOKENS} to {text['positions']} with {path}")
    return text | {"tokens": tokens}


def _grid(places: int, patch: int, path: Path) -> tuple[int, int, int]:
    """Tokens in time, rows and columns of so many stored positions.

    Raises:
        UserError: they cover no square of a size that is published.
    """
    for size in SIZES:
        side = size // patch
        if places and not places % side**2:
            return places // side**2, side, side
    raise UserError(
        f"{path} has {places:,} positions, which cover no square of {', '.join(map(str, SIZES))} pixels in patches of "
        f"{patch}"
    )


def _layers(names: Collection[str], start: str) -> int:
    return len({name.removeprefix(start).split(".")[0] for name in names if name.startswith(start)})


def _own_name(name: str) -> str:
    """The encoder's own name for a weight of a second stage's file."""
    name = re.sub(
        rf"^({_VISION}|vision_proj\.|vision_align\.)", lambda m: "" if m[0] == _VISION else "vision_proj.", name
    )
    return re.sub(r"^(text_encoder\.|(?=text_proj\.))", "text.", name)


def _own_head(weights: Mapping[str, Tensor], epsilon: float, path: Path) -> OwnHead:
    """The classifier of a fine-tuned file: a norm and a linear map of pooled. No such file names its classes.

    Raises:
        UserError: weights of it are missing, unexpected, of another shape, NaN or infinite.
    """
    given = Weights({name.removeprefix(_VISION): value for name, value in weights.items()})
    shape = given["head.weight"].shape if "head.weight" in given else ()
    if len(shape) != 2:
        raise UserError(f"{path}: head.weight is {tuple(shape) or 'missing'}, wanted (classes, width)")
    classes, width = shape
    head = nn.ModuleDict({"fc_norm": nn.LayerNorm(width, epsilon), "head": nn.Linear(width, classes)})
    strict.check_names(head.state_dict(), given, path)
    strict.check_finite(given, path)
    head.load_state_dict({name: value.float() for name, value in given.items()})
    layers = nn.Sequential(head["fc_norm"], head["head"])
    return OwnHead(layers.eval(), tuple(f"LABEL_{number}" for number in range(classes)))


def _listed(paths: Collection[Path]) -> str:
    return f"[{','.join(map(str, paths))}]"
