"""From the word `ckpt=` to an encoder: one file per family, found by the name of the file."""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import evalkit
from evalkit import checkpoint
from evalkit.api import Clip, Encoder, UserError
from evalkit.plugins import factory, suggest

DEMO = Path(evalkit.__file__).parent / "demo"


@dataclass(frozen=True)
class Spec:
    """What config.json or a preset says of an encoder: its family, its clip, the family's settings, its tokenizer."""

    family: str
    clip: Clip
    settings: dict[str, Any]
    tokenizer: Path | None = None

    def build(self) -> nn.Module:
        """The encoder with random weights.

        Raises:
            UserError: there is no such family, or its settings do not fit it.
        """
        make = factory("encoder", self.family)
        try:
            return make(self.clip, self.tokenizer, **self.settings).eval()  # type: ignore[no-any-return]
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"encoder {self.family} cannot be built as its settings say: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """What config.json holds."""
        return {"encoder": self.family, "clip": asdict(self.clip), "settings": self.settings}


def presets() -> dict[str, Path]:
    """The files in configs/ that describe an encoder, by name."""
    folders = [Path(path) / "configs" for path in evalkit.__path__]
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.yaml"))}


def load_encoder(ckpt: str, *, seed: int = 0) -> Encoder:
    """The frozen encoder that `ckpt=` names, in evaluation mode, on the CPU.

    Called with float video (B, T, C, H, W), scaled as `encoder.clip.normalise` does, it returns `.tokens`
    (B, T', S, D) and `.pooled` (B, D); `encode_text(list[str])` gives (B, D) where it has a text tower.

    Args:
        ckpt: `demo`; a folder that evalkit wrote, or the weights file in one; `random:NAME` for a preset of configs/
            with random weights; `package.module:function` for your own, a function that returns an encoder.
        seed: of random weights.

    Raises:
        UserError: there is no such checkpoint, or it cannot be read safely and strictly.
    """
    encoder = _load(ckpt, seed)
    if not isinstance(encoder, nn.Module) or not isinstance(encoder, Encoder):
        raise UserError(f"ckpt={ckpt} gives a {type(encoder).__name__}; wanted a torch module with .clip and .dim")
    return encoder.eval().requires_grad_(False)


def _load(ckpt: str, seed: int) -> Any:
    if ckpt == "demo":
        return _from_folder(DEMO, None)
    if ckpt.startswith("random:"):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return read_preset(ckpt.removeprefix("random:")).build()
    path = Path(ckpt).expanduser()
    if path.is_dir():
        return _from_folder(path, None)
    if path.is_file():
        return _from_folder(path.parent, path)
    if ckpt in presets():
        raise UserError(
            f"ckpt={ckpt} names a preset, which holds no weights: give a folder with weights, or ckpt=random:{ckpt} "
            "for random ones"
        )
    module, _, function = ckpt.partition(":")
    if function and all(part.isidentifier() for part in [*module.split("."), function]):
        sys.path.append(os.getcwd())  # the command's own path starts at its folder, not at the user's
        try:
            return getattr(importlib.import_module(module), function)()
        except UserError:
            raise
        except Exception as error:  # whatever the encoder's own code raises
            raise UserError(f"ckpt={ckpt}: {type(error).__name__}: {error}") from error
        finally:
            sys.path.pop()
    known = ["demo", *(f"random:{name}" for name in presets())]
    raise UserError(f"ckpt={ckpt}: no such file or folder, and no such name.{suggest(ckpt, known)}")


def read_preset(name: str) -> Spec:
    """The encoder that configs/NAME.yaml describes."""
    from omegaconf import OmegaConf

    known = presets()
    if name not in known:
        raise UserError(f"no preset named {name!r}.{suggest(name, known)} Known: {', '.join(known)}")
    values = OmegaConf.to_container(OmegaConf.load(known[name]))
    tokenizer = values.pop("tokenizer", None) if isinstance(values, dict) else None
    return _spec(values, known[name], Path(evalkit.__file__).parent / tokenizer if tokenizer else None)


def folder_of(ckpt: str) -> Path | None:
    """The folder of a local checkpoint, None for any other; adapters trained with it lie in its `adapters`."""
    path = DEMO if ckpt == "demo" else Path(ckpt).expanduser()
    return path if path.is_dir() else path.parent if path.is_file() else None


def spec_of(ckpt: str) -> Spec:
    """What a preset or an evalkit checkpoint says of its encoder.

    Raises:
        UserError: it is neither.
    """
    if ckpt.startswith("random:"):
        return read_preset(ckpt.removeprefix("random:"))
    folder = folder_of(ckpt)
    if folder is not None and (folder / "encoder.json").is_file():
        return spec_of(str(checkpoint.read_json(folder / "encoder.json").get("ckpt")))
    if folder is None or not (folder / "config.json").is_file():
        raise UserError(f"ckpt={ckpt} is no checkpoint that evalkit wrote, so a trained copy of it cannot be written")
    tokenizer = folder / "tokenizer.model"
    values = checkpoint.read_json(folder / "config.json")
    return _spec(values, folder / "config.json", tokenizer if tokenizer.is_file() else None)


def _from_folder(folder: Path, weights: Path | None) -> nn.Module:
    if (folder / "encoder.json").is_file():  # an adapter's folder, which only points to the frozen encoder
        pointer = checkpoint.read_json(folder / "encoder.json")
        if not {"ckpt", "sha256"} <= pointer.keys():
            raise UserError(f"{folder / 'encoder.json'} does not name an encoder: wanted ckpt and sha256")
        encoder = load_encoder(pointer["ckpt"], seed=pointer.get("seed", 0))
        assert isinstance(encoder, nn.Module)
        if (found := checkpoint.sha256(encoder)) != pointer["sha256"]:
            raise UserError(
                f"{folder} was trained on encoder {pointer['ckpt']} with weights {pointer['sha256'][:12]}, which now "
                f"has weights {found[:12]}: train the adapter again, or give the encoder it was trained on"
            )
        return encoder
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no checkpoint that evalkit can read: it has no config.json")
    module = spec_of(str(folder)).build()
    weights = weights or folder / "model.safetensors"
    checkpoint.load_strictly(module, checkpoint.read_weights(weights), weights)
    return module


def save_encoder(module: nn.Module, spec: Spec, folder: Path) -> None:
    """Writes a checkpoint folder that `ckpt=` takes: config.json, model.safetensors (fp16) and tokenizer.model."""
    checkpoint.save(module, folder / "model.safetensors", torch.float16)
    if spec.tokenizer is not None:
        (folder / "tokenizer.model").write_bytes(spec.tokenizer.read_bytes())
    (folder / "config.json").write_text(json.dumps(spec.to_json(), indent=2) + "\n", encoding="utf-8")


def _spec(values: Any, source: Path, tokenizer: Path | None) -> Spec:
    try:
        clip: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values["clip"].items()
        }
        return Spec(values["encoder"], Clip(**clip), dict(values["settings"]), tokenizer)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{source} does not describe an encoder of evalkit's: wanted encoder, clip, settings"
        ) from error
