"""Specifications of encoders: read from presets and checkpoint folders, written with the weights."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

import evalkit
from evalkit import demo
from evalkit.api import Clip, Loading
from evalkit.api.loading import READING
from evalkit.config.values import OutOfBounds, convert, type_name
from evalkit.errors import UserError, among, in_line, suggest
from evalkit.plugins import factory, names, names_own_encoder, shape_settings
from evalkit.video.crop import check_clip
from evalkit.weights import checkpoint
from evalkit.weights.huggingface import refuse_huge
from evalkit.weights.presets import presets, read

MAX_POINTERS = 8  # encoder.json files that name one another, one after the other


@dataclass(frozen=True)
class Spec:
    """Specification of an encoder, from config.json or a preset: family, clip, the family's settings, tokenizer."""

    family: str
    clip: Clip
    settings: dict[str, Any]
    tokenizer: Path | None = None

    def build(self) -> nn.Module:
        """Build the encoder with random weights.

        Raises:
            UserError: there is no such family, or its settings do not fit it.
        """
        make = factory("encoder", self.family)
        try:
            refuse_huge(self.settings, 0)
            settings = {**self.settings, **typed_values(make, self.settings)}
            return make(self.clip, self.tokenizer, **settings).eval()  # type: ignore[no-any-return]
        except UserError:
            raise
        except Exception as error:  # of torch, transformers or a library, in the midst of making it
            raise UserError(
                f"encoder {self.family} cannot be built as its settings say: {in_line(error)[:300]}"
            ) from error

    def changed(self, changes: Mapping[str, Any]) -> Spec:
        """The specification with other settings: `frames` and `size` are the clip's, the rest the family's.

        Raises:
            UserError: there is no such setting.
        """
        of_clip = {key: changes[key] for key in ("frames", "size") if key in changes}
        settings = {  # as files have them
            key: list(value) if isinstance(value, tuple) else value
            for key, value in changes.items()
            if key not in of_clip
        }
        known = shape_settings(self.family)
        if unknown := [key for key in settings if key not in known]:
            near = suggest(unknown[0], [*known, "frames", "size"]) or f" Known: frames, size, {', '.join(known)}"
            raise UserError(f"unknown setting {unknown[0][:60]!r} of an encoder of family {self.family}.{near}")
        try:
            clip = check_clip(replace(self.clip, **typed_values(Clip, of_clip)))
        except ValueError as error:
            raise UserError(f"encoder.{error}") from error
        return replace(self, clip=clip, settings={**self.settings, **settings})

    def to_json(self) -> dict[str, Any]:
        """Content of config.json."""
        return {"encoder": self.family, "clip": asdict(self.clip), "settings": self.settings}


def read_preset(name: str, tokenizer: Path | None = None) -> Spec:
    """Read the specification in configs/NAME.yaml; a tokenizer that is given replaces its own."""
    known = presets()
    if name not in known:
        near = (
            " Did you mean 'vivit_demo'?" if name == "demo" else among(name, known, "`evalkit list encoders` shows all")
        )
        raise UserError(f"no preset named {name!r}, whose shape random weights could have.{near}")
    values = read(known[name])
    default = Path(evalkit.__file__).parent / values["tokenizer"] if "tokenizer" in values else None
    return _parse(values, known[name], tokenizer or default)


def folder_of(ckpt: str) -> Path | None:
    """Folder of a local checkpoint, with its trained adapters in `adapters/`; None for any other `ckpt=`."""
    path = demo.FOLDER if ckpt == "demo" else Path(ckpt).expanduser()
    return path if path.is_dir() else path.parent if path.is_file() else None


def read_pointer(file: Path, via: tuple[Path, ...]) -> dict[str, Any]:
    """Read an encoder.json, which names the frozen encoder that an adapter was trained on.

    Args:
        file: the encoder.json.
        via: the encoder.json files that led here, each naming the next.

    Returns:
        ckpt, sha256, seed and settings.

    Raises:
        UserError: it names no encoder, or `via` holds it already or is too long.
    """
    if file in via or len(via) >= MAX_POINTERS:
        problem = "is reached from itself" if file in via else f"is the end of a chain of more than {MAX_POINTERS}"
        raise UserError(f"{file} {problem}: every encoder.json on the way names another folder, and none an encoder")
    kinds = {"ckpt": str, "sha256": str, "seed": int, "settings": dict}
    pointer: dict[str, Any] = {"seed": 0, "settings": {}} | checkpoint.read_json(file)
    wrong = [key for key, kind in kinds.items() if type(pointer.get(key)) is not kind]
    if not wrong and not 0 <= pointer["seed"] < 2**64:
        wrong = ["seed"]
    if wrong:
        raise UserError(f"{file} does not name an encoder: wanted ckpt and sha256, and its {wrong[0]} is of no use")
    return pointer


def spec_of(
    ckpt: str,
    tokenizer: Path | None = None,
    via: tuple[Path, ...] = (),
    settings: Mapping[str, Any] | None = None,
) -> Spec:
    """Read the specification of a preset or of a checkpoint that evalkit wrote; no family is imported.

    Args:
        ckpt: `random:NAME`, or a local folder or file.
        tokenizer: in place of its own.
        via: the encoder.json files that led here.
        settings: of `random:NAME`, in place of the preset's; others are left alone.

    Raises:
        UserError: it is neither.
    """
    if ckpt.startswith("random:"):
        changes = changes_of(ckpt, settings or {})
        return read_preset(ckpt.removeprefix("random:"), tokenizer).changed(changes)
    folder = folder_of(ckpt)
    if folder is not None and (folder / "encoder.json").is_file():
        file = folder.resolve() / "encoder.json"
        pointer = read_pointer(file, via)
        return spec_of(pointer["ckpt"], via=(*via, file), settings=pointer["settings"])
    if folder is None or not (folder / "config.json").is_file():
        raise UserError(
            f"ckpt={ckpt} is not a checkpoint that evalkit wrote, so a trained copy cannot be saved: that works for "
            "VideoPrism's and LongViViT's families; of other encoders, adapter=finetune saves what it trains"
        )
    default = next((path for path in (folder / "tokenizer.model", folder / "tokenizer") if path.exists()), None)
    return _parse(checkpoint.read_json(folder / "config.json"), folder / "config.json", tokenizer or default)


def changes_of(ckpt: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings, those of the preset or function that is built, not those that say how weights are read.

    What is built is named by `random:NAME`, or by `model` where `ckpt` is a file of weights; nothing is imported.
    """
    model = ckpt.removeprefix("random:") if ckpt.startswith("random:") else settings.get("model", "")
    if isinstance(model, str) and names_own_encoder(model):
        return {key: value for key, value in settings.items() if key not in READING}
    preset = presets().get(model) if isinstance(model, str) else None
    if preset is None:
        return {}
    known = shape_settings(str(read(preset)["encoder"]))
    loading = {field.name for field in fields(Loading)} - set(known)
    return {key: value for key, value in settings.items() if key not in loading}


def save_encoder(module: nn.Module, spec: Spec, folder: Path) -> None:
    """Write a checkpoint folder that `ckpt=` accepts: config.json, model.safetensors (fp16) and tokenizer.model."""
    checkpoint.save(module, folder / "model.safetensors", torch.float16)
    if spec.tokenizer is not None:
        if spec.tokenizer.is_dir():
            shutil.copytree(spec.tokenizer, folder / "tokenizer")
        else:
            shutil.copyfile(spec.tokenizer, folder / "tokenizer.model")
    (folder / "config.json").write_text(json.dumps(spec.to_json(), indent=2) + "\n", encoding="utf-8")


def typed_values(owner: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Values from a file as the parameters or fields of their owner declare them; those of no plain type are left out.

    Raises:
        ValueError: a value does not fit its type or bounds.
    """
    try:
        kinds = get_type_hints(owner, include_extras=True)
    except NameError:  # of an outsider's, imported for type checkers alone
        return {}
    typed: dict[str, Any] = {}
    for name in values.keys() & inspect.signature(owner).parameters.keys():
        kind, value = kinds.get(name, Any), values[name]
        if kind is Any or "dict" in str(kind):
            continue
        try:
            typed[name] = convert(value, kind)
        except (ValueError, OverflowError) as error:
            wanted = error if isinstance(error, OutOfBounds) else type_name(kind)
            raise ValueError(f"{name}={str(value)[:60]!r}: expected {wanted}") from None
    return typed


def _parse(values: Any, source: Path, tokenizer: Path | None) -> Spec:
    """Check the values of config.json or a preset's yaml.

    Raises:
        UserError: they do not describe an encoder, or no such family is installed.
    """
    try:
        clip = {**values["clip"], **typed_values(Clip, values["clip"])}
        family, settings, known = values["encoder"], dict(values["settings"]), names("encoder")
        if family == "vivit" and family not in known:  # as it was called and spelled before
            family = "longvivit"
            if settings.get("attention") == "factorised":
                settings["attention"] = "factorized"
        if family not in known:
            raise UserError(
                f"no encoder named {str(family)[:200]!r}.{suggest(str(family), known)} A file, here {source}, may name "
                f"only those that are installed: {', '.join(known)}"
            )
        return Spec(family, check_clip(Clip(**clip)), settings, tokenizer)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{source} does not describe an encoder of evalkit's: wanted encoder, clip, settings; "
            f"{in_line(error)[:200]}"
        ) from error
