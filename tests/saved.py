"""Tiny models as transformers saves them, with preprocessor files as the published ones have them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from evalkit.api import Clip
from evalkit.encoders import Spec, load_encoder, read_preset, save_encoder
from evalkit.errors import UserError

PIXELS = torch.Generator().manual_seed(1)
SQUARE = {"height": 32, "width": 32}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def preprocessor(size: dict[str, int], colors: dict[str, list[float]], **more: Any) -> dict[str, Any]:
    """What a preprocessor file states: frames of a size; where that is their shortest edge, 32 x 32 pixels are cut."""
    cut = {"do_center_crop": True, "crop_size": SQUARE} if "shortest_edge" in size else {}
    scaled = {"do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_resize": True}
    return {"size": size, **cut, **scaled, **colors, **more}


def save(folder: Path, model: Any, preprocessor: dict[str, Any], half: bool = False) -> Path:
    """The folder with a model whose every weight is random, biases, norms and class tokens too."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.1 + (parameter.ndim == 1) * 0.5)
    (model.half() if half else model).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def normalized(folder: Path, pixels: Tensor) -> Tensor:
    """What the preprocessor file of a folder makes of uint8 pixels (..., 3, H, W), worked out in float64."""
    stated = json.loads((folder / "preprocessor_config.json").read_text())
    values = pixels.numpy().astype(np.float64) * stated["rescale_factor"] - (1.0 if stated.get("offset") else 0.0)
    mean, std = (np.array(stated[name]).reshape(3, 1, 1) for name in ("image_mean", "image_std"))
    return torch.from_numpy(((values - mean) / std).astype(np.float32))


def video(folder: Path, encoder: Any, batch: int = 2) -> Tensor:
    """A clip of noise as the folder's files want it, which is also what the encoder's clip makes of it."""
    clip = encoder.clip
    shape = (batch, clip.frames, 3, clip.size, clip.size)
    pixels = torch.randint(0, 256, shape, generator=PIXELS, dtype=torch.uint8)
    inputs = normalized(folder, pixels)
    assert torch.allclose(clip.normalize(pixels), inputs, rtol=0, atol=1e-6)
    return inputs


def same(found: Tensor, wanted: Tensor, within: float = 0.0) -> bool:
    """Whether two tensors of one shape differ by no more."""
    return found.shape == wanted.shape and float((found - wanted).detach().abs().max()) <= within


def load(ckpt: object, **settings: Any) -> Any:
    """The encoder, of which any attribute may be asked."""
    return load_encoder(str(ckpt), **settings)


def change(folder: Path, what: Callable[[dict[str, Tensor]], object]) -> None:
    """Changes the weights in a folder."""
    weights = load_file(folder / "model.safetensors")
    what(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def refusal(ckpt: object, **settings: Any) -> str:
    """What is said of a checkpoint that is refused, one line."""
    with pytest.raises(UserError) as caught:
        load_encoder(str(ckpt), **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refuses_what_does_not_fit(folder: Path, name: str) -> None:
    """Loads as it is; not without the weight `name`, nor with one more beside it, nor with it in another shape."""
    kept = (folder / "model.safetensors").read_bytes()
    load(folder)
    stem = name.rpartition(".")[0]
    for what, words in [
        (lambda weights: weights.pop(name), "missing"),
        (lambda weights: weights.update({f"{stem}.bogus": torch.zeros(3)}), "unexpected"),
        (lambda weights: weights.update({name: torch.zeros(5, 7)}), "(5, 7), wanted"),
    ]:
        change(folder, what)
        assert words in refusal(folder)
        (folder / "model.safetensors").write_bytes(kept)


def takes_batches_of_any_size_and_gives_the_same_every_time(encoder: Any, inputs: Tensor) -> None:
    """Nothing of one clip depends on the others, on chance, or on an earlier call."""
    together = encoder(inputs)
    torch.manual_seed(5)
    assert torch.equal(encoder(inputs).tokens, together.tokens)
    for i in range(len(inputs)):
        alone = encoder(inputs[i : i + 1])
        assert same(alone.tokens, together.tokens[i : i + 1], 1e-5)
        assert same(alone.pooled, together.pooled[i : i + 1], 1e-5)


def sees_frames_one_by_one(folder: Path, within: float) -> None:
    """No frame of a clip depends on another, nor does a clip."""
    encoder = load(folder)
    inputs = video(folder, encoder, 3)
    takes_batches_of_any_size_and_gives_the_same_every_time(encoder, inputs)
    whole = encoder(inputs[:1])
    for i in range(8):
        alone = encoder(inputs[:1, i : i + 1])
        assert same(alone.tokens, whole.tokens[:, i : i + 1], within)
        assert same(alone.pooled, whole.frames[:, i], within)


def is_float32_in_memory(folder: Path) -> None:
    """Whatever the dtype on disk."""
    encoder = load(folder)
    assert {value.dtype for value in encoder.state_dict().values()} == {torch.float32}
    assert encoder(video(folder, encoder, 1)).pooled.dtype == torch.float32


def clip_of_the_family(folder: Path) -> Clip:
    """The clip of an encoder beside whose weights no preprocessor file lies."""
    file = folder / "preprocessor_config.json"
    kept = file.read_text()
    file.unlink()
    try:
        return load_encoder(str(folder)).clip
    finally:
        file.write_text(kept)


def saved_and_loaded(spec: Spec, folder: Path) -> tuple[Any, Any]:
    """A random encoder, and what is loaded after it was saved: its weights, rounded to float16."""
    module = spec.build()
    save_encoder(module, spec, folder)
    loaded = load(folder)
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name
    return module, loaded


def preset_takes_its_models_clip(name: str, frames: str, size: str) -> None:
    """Checks that a preset's clip is what the model of its settings takes."""
    spec = read_preset(name)
    settings = spec.settings.get("vision_config", spec.settings)
    assert (spec.clip.frames, spec.clip.size) == (settings[frames], settings[size])
