"""What an encoder is shown, against what the model's own processor makes of the same frames.

transformers' processors without torchvision scale by Pillow, which rounds and clips between its two passes as torch
does for uint8: equal but for at most 2 of 255, by 0.01 on average. Pillow 13 scales a tall frame's columns first, which
is off by 0.35 on average where the frame is noise. A cut that is one pixel off differs by dozens.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor

from evalkit.api import Augment, Clip, FeatureSpec, Views
from evalkit.errors import UserError
from evalkit.features.key import FeatureKey, Identity
from evalkit.features.sources import resolve_views
from evalkit.video.augment import augmented_views
from evalkit.video.clips import read_clip
from evalkit.video.crop import cut_crops
from evalkit.video.decode import open_video
from evalkit.weights import preprocessor
from tests import given
from tests.encoders import test_hf_image, test_hf_image_text, test_hf_video, test_hf_video_text, test_vjepa2
from tests.saved import HALF, IMAGENET, load, save
from tests.video.test_clips import decoded, write_video

CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
SCALED = {"do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_resize": True}


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def cut(short: int, side: int, resample: int, **more: Any) -> dict[str, Any]:
    size = {"size": {"shortest_edge": short}, "do_center_crop": True, "crop_size": square(side)}
    return {**SCALED, **size, "resample": resample, **more}


# The preprocessor's file as it lies beside the published weights, and the class of transformers that it describes, or
# one with the same steps, where its own needs torchvision.
FILES: dict[str, tuple[dict[str, Any], str]] = {
    "dinov2": (cut(256, 224, 3, **IMAGENET), "BitImageProcessorPil"),
    "dinov2_with_registers": (cut(256, 224, 3, **IMAGENET), "BitImageProcessorPil"),
    "dinov3_vit": ({**SCALED, "size": square(224), "resample": 2, **IMAGENET}, "ViTImageProcessorPil"),
    "vit": ({**SCALED, "size": square(224), "resample": 2, **HALF}, "ViTImageProcessorPil"),
    "clip": (cut(224, 224, 3, **CLIP), "CLIPImageProcessorPil"),
    "siglip": ({**SCALED, "size": square(224), "resample": 3, **HALF}, "SiglipImageProcessorPil"),
    "videomae": (cut(224, 224, 2, **IMAGENET), "VideoMAEImageProcessorPil"),
    "vivit": (cut(256, 224, 2, **HALF, offset=True) | {"rescale_factor": 1 / 127.5}, "VivitImageProcessor"),
    "timesformer": (cut(224, 224, 2, image_mean=[0.45] * 3, image_std=[0.225] * 3), "VideoMAEImageProcessorPil"),
    "xclip": (cut(224, 224, 2, **IMAGENET), "VideoMAEImageProcessorPil"),
    "vjepa2": (cut(292, 256, 2, **IMAGENET), "VideoMAEImageProcessorPil"),
}
REAL = ("decord/tests__test_data__video_90.mov", "intel-sample-videos/asl_gestures__eat.mkv", "derived/sar_4_3.mp4")
SHAPES = [(240, 427), (431, 240), (272, 363), (1080, 1920), (97, 131), (224, 224)]  # height, width


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each kind with that file."""
    xclip: Any = transformers.XCLIPModel
    makers: dict[str, Any] = {
        **dict.fromkeys(test_hf_image.KINDS, test_hf_image.model),
        **dict.fromkeys(("clip", "siglip"), test_hf_image_text.model),
        **dict.fromkeys(("videomae", "vivit", "timesformer"), test_hf_video.model),
        "xclip": lambda kind: xclip(transformers.XCLIPConfig(**test_hf_video_text.SETTINGS)),
        "vjepa2": lambda kind: test_vjepa2.model(),
    }
    return {kind: save(tmp_path_factory.mktemp(kind), makers[kind](kind), FILES[kind][0]) for kind in FILES}


def processed(file: dict[str, Any], processor: str, frames: NDArray[np.uint8]) -> Tensor:
    """What transformers makes of frames (T, H, W, 3): (T, 3, size, size)."""
    values = {key: value for key, value in file.items() if key != "offset" or processor.startswith("Vivit")}
    made = getattr(transformers, processor)(**values)(list(frames), return_tensors="pt")["pixel_values"]
    return made[0] if made.ndim == 5 else made  # type: ignore[no-any-return]


def shown(clip: Clip, frames: NDArray[np.uint8]) -> Tensor:
    """What an encoder with this clip is shown of frames, where neither task nor user says anything."""
    views = resolve_views(Views(), clip, {})
    assert views.size and views.resize and views.share
    scaling = (views.size, views.resize, 1, views.share, clip.interpolation, clip.center)
    return clip.normalize(torch.cat([cut_crops(torch.from_numpy(frame), *scaling) for frame in frames]))


def alike(clip: Clip, found: Tensor, wanted: Tensor) -> bool:
    """Whether two inputs of an encoder are equal but for the rounding of pixels."""
    assert found.shape == wanted.shape
    low, high = clip.value_range
    steps = (found - wanted).abs() * 255 * torch.tensor(clip.std).view(3, 1, 1) / (high - low)
    return float((steps > 2.01).float().mean()) < 0.02 and float(steps.mean()) < 0.35


@pytest.mark.parametrize("kind", sorted(FILES))
def test_frames_of_any_shape_are_shown_as_the_models_own_processor_shows_them(
    folders: dict[str, Path], kind: str
) -> None:
    clip = load(folders[kind]).clip
    rng = np.random.default_rng(0)
    for height, width in SHAPES:
        frames = rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
        assert alike(clip, shown(clip, frames), processed(*FILES[kind], frames)), (height, width)


@given.real
@pytest.mark.parametrize("kind", sorted(FILES))
def test_real_frames_are_shown_as_the_models_own_processor_shows_them(folders: dict[str, Path], kind: str) -> None:
    clip = replace(load(folders[kind]).clip, frames=2)
    for name in REAL:
        file = given.DATA / "videos" / name
        views = resolve_views(Views(), clip, {})
        assert views.size
        seen = decoded(read_clip(file, None, views, 2, views.size, clip=clip))
        times = open_video(file).times
        frames = open_video(file).read([int(np.abs(times - time).argmin()) for time in seen.times[0]])
        found = clip.normalize(seen.pixels[0])
        assert alike(clip, found, processed(*FILES[kind], frames)), name


PLAIN = Clip(8, 224)


def read(folder: Path, values: dict[str, Any], default: Clip = PLAIN, name: str = "preprocessor_config.json") -> Clip:
    (folder / name).write_text(json.dumps(values))
    return preprocessor.read_clip(folder, default)


@pytest.mark.parametrize(("whole", "side"), [(248, 224), (256, 224), (438, 384), (231, 224), (397, 378), (224, 224)])
def test_the_share_gives_back_the_pixels_that_the_file_states(tmp_path: Path, whole: int, side: int) -> None:
    clip = read(tmp_path, cut(whole, side, 2))
    assert (clip.size, clip.resize, clip.center, int(clip.size / clip.share)) == (side, "crop", "below", whole)
    clip = read(tmp_path, {"size": square(whole), "crop_size": side, "do_center_crop": True, "resample": 3})
    assert int(clip.size / clip.share) == whole and clip.interpolation == "bicubic"
    assert clip.resize == ("squash" if whole == side else "squash_crop")


def test_a_frame_that_is_squashed_and_then_cut_is_shown_so(tmp_path: Path) -> None:
    file = {**SCALED, **HALF, "size": square(256), "crop_size": square(224), "do_center_crop": True, "resample": 2}
    clip = read(tmp_path, file)
    frames = np.random.default_rng(0).integers(0, 256, (1, 240, 427, 3), dtype=np.uint8)
    assert alike(clip, shown(clip, frames), processed(file, "CLIPImageProcessorPil", frames))


def test_naflex_is_shown_a_square_as_its_processor_cuts_it_into_patches(tmp_path: Path) -> None:
    file: dict[str, Any] = {**SCALED, **HALF, "resample": 2, "patch_size": 16, "max_num_patches": 64}
    clip = read(tmp_path, file, Clip(8, 256))
    frames = np.random.default_rng(0).integers(0, 256, (1, 240, 240, 3), dtype=np.uint8)
    made = transformers.Siglip2ImageProcessorPil(**file)(list(frames), return_tensors="pt")
    assert made["spatial_shapes"].tolist() == [[8, 8]]
    patches = made["pixel_values"].reshape(1, 8, 8, 16, 16, 3).permute(0, 5, 1, 3, 2, 4).reshape(1, 3, 128, 128)
    assert alike(clip, shown(clip, frames), patches)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (cut(224, 224, 1), "resample=1, which is lanczos: wanted 2 (bilinear) or 3 (bicubic)"),
        (cut(224, 224, 0), "resample=0, which is nearest"),
        (cut(192, 224, 2), "cuts 224 pixels of a frame scaled to 192"),
        (cut(224, 224, 2, size={"height": 224, "width": 256}), "wanted a square"),
        (cut(224, 224, 2, size={"longest_edge": 224}), "or the shortest_edge"),
        (cut(224, 224, 2, size={"shortest_edge": 224.5}), "a whole number"),
        (cut(224, 224, 2, image_std=[0.5, 0, 0.5], image_mean=[0.5] * 3), "not above 0"),
        (cut(224, 224, 2, rescale_factor=float("nan")), "above 0 and up to 255"),
    ],
)
def test_what_no_clip_can_express_is_told_in_one_line(tmp_path: Path, values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match="^the preprocessor's file in .* states no clip: ") as caught:
        read(tmp_path, {**SCALED, **values})
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_files_are_taken_in_transformers_own_order(tmp_path: Path) -> None:
    assert read(tmp_path, cut(256, 224, 2)).share == 0.875
    assert read(tmp_path, cut(224, 224, 2), name="video_preprocessor_config.json").share == 1
    assert read(tmp_path, {"video_processor": cut(448, 224, 3)}, name="processor_config.json").share == 0.5


def test_a_protocol_or_a_user_who_says_how_frames_become_square_says_it_all() -> None:
    clip = Clip(share=0.875)
    assert resolve_views(Views(), clip, {}).share == 0.875
    assert resolve_views(Views(resize="crop"), clip, {}).share == 1
    assert resolve_views(Views(resize="squash"), clip, {}).share == 1
    assert resolve_views(Views(), clip, {"share": 0.5}).share == 0.5
    assert resolve_views(Views(), clip, {"share": 1.0}).share == 1
    assert resolve_views(Views(resize="crop", share=0.9), clip, {}).share == 0.9


def test_a_stored_feature_is_known_by_how_its_frames_were_scaled_and_cut() -> None:
    def key(clip: Clip) -> bytes:
        views = resolve_views(Views(), clip, {})
        return FeatureKey(Identity(1, ""), None, views, clip, "", "", "", FeatureSpec(), "32").digest()

    changes: list[dict[str, Any]] = [{}, {"share": 0.875}, {"interpolation": "bicubic"}, {"center": "below"}]
    assert len({key(replace(Clip(), **change)) for change in changes}) == len(changes)


def test_the_filter_reaches_the_frames_of_every_way_to_read_them(tmp_path: Path) -> None:
    video = write_video(tmp_path / "gray.mp4")
    looks = augmented_views(Augment(), 0)
    for words in ({}, {"looks": looks}):
        one, other = (
            decoded(read_clip(video, None, Views(), 2, 48, clip=Clip(interpolation=name), **words)).pixels  # type: ignore[arg-type]
            for name in ("bilinear", "bicubic")
        )
        assert not torch.equal(one, other)
