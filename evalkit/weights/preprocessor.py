"""Preprocessor files of transformers, and the clip that they state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from evalkit.api import Center, Clip, Interpolation, Resize
from evalkit.errors import UserError, in_line
from evalkit.video.crop import check_clip
from evalkit.weights import checkpoint

# Mean and std of most vision models; frames and size are each model's own.
IMAGENET = Clip(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# Pillow's filters by their numbers, which preprocessor files state.
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
MAX_SIDE = 16384  # pixels; no model takes more


def read_clip(folder: Path, default: Clip, shift: float = 0.0) -> Clip:
    """Read the clip that the preprocessor files of a folder state; what they do not state is as in `default`.

    Args:
        folder: with preprocessor_config.json, video_preprocessor_config.json or processor_config.json.
        default: of the family, with the frames and the size of the model's configuration.
        shift: added after scaling, where the file does not say; ViViT's processor subtracts 1.

    Raises:
        UserError: a file states something that no clip can express.
    """
    values = read_values(folder)
    mean, std = default.mean, default.std
    low, high = default.value_range
    try:
        square = _square(values, default)
        if not values.get("do_normalize", True):
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        elif "image_mean" in values and "image_std" in values:
            mean, std = _three(values["image_mean"]), _three(values["image_std"])
        if not values.get("do_rescale", True):
            low, high = 0.0, 255.0
        elif "rescale_factor" in values:
            low = shift if "offset" not in values else -1.0 if values["offset"] else 0.0
            factor = values["rescale_factor"]
            if type(factor) not in (int, float) or not 0 < factor <= 255:
                raise ValueError(f"rescale_factor={str(factor)[:60]}: wanted a number above 0 and up to 255")
            high = 255 * float(factor) + low
        return check_clip(replace(square, mean=mean, std=std, value_range=(low, high)))
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"the preprocessor's file in {folder} states no clip: {in_line(error)[:300]}") from error


def _square(values: Mapping[str, Any], default: Clip) -> Clip:
    """The clip with the size that a preprocessor's values state, and how frames become such squares.

    Raises:
        ValueError: they state no square, or a filter or a cut that evalkit does not have.
    """
    scaled, crop = values.get("size"), values.get("crop_size")
    if "max_num_patches" in values:  # NaFlex, whose squares have so many
        patches, patch = (_side(name, values.get(name, 16)) for name in ("max_num_patches", "patch_size"))
        default = replace(default, size=math.isqrt(patches) * patch)
    resize: Resize = default.resize
    if isinstance(scaled, dict):
        resize = "squash" if "height" in scaled else "crop"
    side, cut = _side("size", scaled), bool(values.get("do_center_crop", crop is not None or not values))
    size = (_side("crop_size", crop) or default.size) if cut else side or default.size
    whole = side or (int(size / default.share) if cut else size)
    if size > whole:
        raise ValueError(f"it cuts {size} pixels of a frame scaled to {whole}: wanted a crop_size of at most size")
    share = size / whole
    if int(size / share) != whole:  # cut off by rounding
        share = math.nextafter(share, 0.0)
    if resize == "squash" and share < 1:
        resize = "squash_crop"
    center: Center = default.center if resize == "squash" else "below"
    return replace(
        default, size=size, resize=resize, share=share, interpolation=_filter(values, default), center=center
    )


def _side(name: str, size: Any) -> int:
    """The side in pixels of a preprocessor's `size` or `crop_size`; 0 where it states none."""
    if isinstance(size, list | tuple):
        size = dict(zip(("height", "width"), size, strict=True))
    if isinstance(size, dict):
        stated = {key for key, value in size.items() if value is not None}
        if stated not in ({"height", "width"}, {"shortest_edge"}) or size.get("height") != size.get("width"):
            raise ValueError(f"{name}={str(size)[:60]}: wanted a square, height and width, or the shortest_edge")
        size = size.get("height") or size.get("shortest_edge")
    if size is None:
        return 0
    if type(size) is not int or not 0 < size <= MAX_SIDE:
        raise ValueError(f"{name}={str(size)[:60]}: wanted pixels, a whole number from 1 to {MAX_SIDE}")
    return size


def _filter(values: Mapping[str, Any], default: Clip) -> Interpolation:
    """The filter that a preprocessor scales with."""
    resample = values.get("resample", default.interpolation)
    name = FILTERS.get(resample, "unknown") if type(resample) is int else resample
    for known in get_args(Interpolation):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f"resample={str(resample)[:60]}, which is {str(name)[:60]}: wanted 2 (bilinear) or 3 (bicubic)")


def read_values(folder: Path) -> dict[str, Any]:
    """The contents of a folder's first preprocessor file, in transformers' order; empty if there is none."""
    for name in ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            values = checkpoint.read_json(folder / name)
            nested = values.get("video_processor") or values.get("image_processor") or values
            if not isinstance(nested, dict):
                raise UserError(f"cannot read {folder / name}: its processor is a {type(nested).__name__}, no object")
            if nested is not values or "size" in nested or "image_mean" in nested:
                return {key: value for key, value in nested.items() if value is not None}
    return {}


def _three(values: Any) -> tuple[float, float, float]:
    """A mean or std of each channel; one number stands for all three."""
    numbers = values if isinstance(values, list) else [values] * 3
    if len(numbers) != 3 or not all(type(value) in (int, float) for value in numbers):
        raise ValueError(f"a mean or std of {str(values)[:60]}: wanted three numbers")
    red, green, blue = map(float, numbers)
    return red, green, blue
