"""VideoPrism's published weights: official .npz archives and Hugging Face folders."""

from __future__ import annotations

from pathlib import Path

from evalkit.api import Clip, Loading
from evalkit.encoders.videoprism.archive import load_archive
from evalkit.encoders.videoprism.model import VideoPrism
from evalkit.encoders.videoprism.text import TOKENIZER_FILES, TextTower
from evalkit.errors import UserError
from evalkit.weights.huggingface import Weights, load, read_config
from evalkit.weights.preprocessor import read_clip

MODEL_TYPES = ("videoprism", "videoprism_vision_model")
SUFFIXES = (".npz",)


def pretrained(path: Path, loading: Loading, weights: Weights = None) -> VideoPrism:
    """VideoPrism from a Hugging Face folder or an official .npz, every weight in place.

    A folder gives what transformers gives, its text positions included. The official archive gives the official
    positions, which transformers' own differ from.

    Raises:
        UserError: weights are missing, unexpected or of another shape, or the files cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    tokenizer = loading.tokenizer or next(
        (folder / name for name in TOKENIZER_FILES if (folder / name).is_file()), None
    )
    if path.is_dir():
        return _from_folder(path, tokenizer, weights)
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
