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

from evalkit.api import UserError
from evalkit.encoders import load_encoder, read_preset

PIXELS = torch.Generator().manual_seed(1)


def save(folder: Path, model: Any, preprocessor: dict[str, Any], half: bool = False) -> Path:
    """The folder with a model whose every weight is random, biases, norms and class tokens too."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.1 + (parameter.ndim == 1) * 0.5)
    (model.half() if half else model).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def normalised(folder: Path, pixels: Tensor) -> Tensor:
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
    inputs = normalised(folder, pixels)
    assert torch.allclose(clip.normalise(pixels), inputs, rtol=0, atol=1e-6)
    return inputs


def same(found: Tensor, wanted: Tensor, within: float = 0.0) -> bool:
    """Whether two tensors of one shape differ by no more."""
    return found.shape == wanted.shape and float((found - wanted).detach().abs().max()) <= within


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
    load_encoder(str(folder))
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


def preset_is_right(name: str, frames: str, size: str) -> Any:
    """Checks that a preset's card counts its weights and its clip is what the model of its settings takes."""
    from evalkit.cards import card, presets

    spec = read_preset(name)
    with torch.device("meta"):
        module = spec.build()
    assert sum(parameter.numel() for parameter in module.parameters()) == card(presets()[name]).parameters
    settings = spec.settings.get("vision_config", spec.settings)
    assert (spec.clip.frames, spec.clip.size) == (settings[frames], settings[size])
    return module
