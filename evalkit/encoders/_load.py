"""From the word `ckpt=` to an encoder: one file per family, found by the name of the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import evalkit
from evalkit.api import Clip, Encoder, Loading
from evalkit.errors import UserError, one_line, suggest
from evalkit.plugins import factory, module_and_factory, names, names_function, own_encoder
from evalkit.weights import checkpoint, huggingface
from evalkit.weights.presets import card, read
from evalkit.weights.presets import presets as presets

DEMO = Path(evalkit.__file__).parent / "demo"
DEEPEST = 8  # folders that point to one another, one after the other


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


def load_encoder(ckpt: str | Path, *, seed: int = 0, **settings: Any) -> Encoder:
    """The frozen encoder that `ckpt=` names, in evaluation mode, float32, on the CPU.

    Called with float video (B, T, C, H, W), scaled as `encoder.clip.normalize` does, it returns `.tokens`
    (B, T', S, D) and `.pooled` (B, E); `encode_text(list[str])` gives (B, E) where it has a text tower.

    Args:
        ckpt: `demo`; the name of a preset in configs/, which stands for its model on the Hugging Face hub; a folder
            that evalkit or transformers wrote; an official VideoPrism .npz or V-JEPA 2 .pt; a weights file with its
            config.json beside it, or with `model=`; `organization/model` on the hub; `random:NAME` for a preset with
            random weights; `timm:NAME` or `open_clip:MODEL/TAG` of these libraries; `package.module:function` or an
            entry point's name for your own.
        seed: of random weights.
        settings: fields of `evalkit.api.Loading`, which are the keys of `encoder.*`; more are arguments for a function
            of your own.

    Functions are imported where these arguments name them. Where a file in a folder names one, as an adapter's folder
    does that was trained on it, `trust=True` is needed too.

    Raises:
        UserError: there is no such checkpoint, or it cannot be read safely and strictly.
    """
    return _open(str(ckpt), seed, settings)


def _open(ckpt: str, seed: int, settings: dict[str, Any], via: tuple[Path, ...] = (), trust: bool = False) -> Encoder:
    """See `load_encoder`.

    Args:
        ckpt: what is to be loaded.
        seed: of random weights.
        settings: as `load_encoder` takes them; of a file, without `trust`.
        via: the encoder.json files that led here, each naming the next; the last one gave ckpt and settings. Empty
            where these are the user's own words.
        trust: what the user said, where a file gave the settings.
    """
    if not ckpt or "\n" in ckpt or len(ckpt) > 4096:
        raise UserError(f"ckpt={ckpt[:40]!r}: wanted the name, the folder or the file of an encoder, on one line")
    path = Path(ckpt).expanduser()
    try:
        if via and not trust and not path.exists():
            _refuse_code(ckpt, via)
        function = None if path.exists() else own_encoder(ckpt)
        if function:
            encoder = _call(ckpt, function, settings)
        else:
            encoder = _load(ckpt, path, seed, _loading(settings | ({"trust": trust} if via else {})), via)
    except OSError as error:  # no permission, a name that is too long, a disk that fails
        raise UserError(f"ckpt={ckpt[:200]} cannot be read: {error.strerror or error}") from error
    if not isinstance(encoder, nn.Module) or not isinstance(encoder, Encoder):
        raise UserError(f"ckpt={ckpt} gives a {type(encoder).__name__}; wanted a torch module with .clip and .dim")
    return encoder.eval().requires_grad_(False)


def _refuse_code(word: str, via: tuple[Path, ...]) -> None:
    """Only the user may name a function, which is imported and so can do anything; a file that came along may not.

    Raises:
        UserError: the word, which the last of these files holds, names one.
    """
    if names_function(word):
        raise UserError(
            f"{via[-1].parent} wants to run code, {word[:200]!r} ({via[-1].name}): add trust=true, or trust=True in "
            "Python, if you trust who made it"
        )


def _loading(settings: dict[str, Any]) -> Loading:
    """The settings as `evalkit.api.Loading`; Python's callers may give text for a path."""
    known = [field.name for field in fields(Loading)]
    if unknown := settings.keys() - set(known):
        near = suggest(min(unknown), known) or f" Known: {', '.join(known)}"
        raise UserError(f"unknown setting {min(unknown)!r} of an encoder.{near}")
    loading = Loading(**settings)
    if not isinstance(loading.heads, int):
        raise UserError(f"encoder.heads={loading.heads!r}: expected a whole number")
    for name in ("model", "prefix", "tokenizer"):
        value = getattr(loading, name)
        if not isinstance(value, str) and not (name == "tokenizer" and (value is None or isinstance(value, Path))):
            raise UserError(f"encoder.{name}={str(value)[:60]}: expected text")
    if loading.tokenizer is None:
        return loading
    tokenizer = Path(loading.tokenizer).expanduser()
    if not tokenizer.exists():
        raise UserError(f"encoder.tokenizer={tokenizer}: no such file or folder")
    return replace(loading, tokenizer=tokenizer)


def _only(what: str, loading: Loading, *names: str) -> None:
    """Refuses settings that would do nothing: who gives one means other weights than would be read."""
    for field in fields(loading):
        value = getattr(loading, field.name)
        if value != field.default and field.name not in ("trust", *names):
            raise UserError(f"encoder.{field.name}={value} has no effect on {what}: leave it out")


def _load(ckpt: str, path: Path, seed: int, loading: Loading, via: tuple[Path, ...]) -> Any:
    if ckpt == "demo":
        return _from_folder(DEMO, None, loading, via)
    if ckpt.startswith("random:"):
        _only("random weights", loading, "tokenizer")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return read_preset(ckpt.removeprefix("random:"), loading.tokenizer).build()
    if path.is_dir():
        return _from_folder(path, None, loading, via)
    if path.is_file():
        return _from_file(path, loading, via)
    family, _, name = ckpt.partition(":")
    if name and family in names("encoder"):
        library: Any = module_and_factory("encoder", family)[0]
        if not hasattr(library, "pretrained_name"):
            raise UserError(f"ckpt={ckpt}: {family} has no models by name")
        _only(f"a model of {family}", loading, "tokenizer")
        return library.pretrained_name(name, loading)
    if ckpt in presets():
        hub = card(presets()[ckpt]).hub
        if not hub:
            raise UserError(
                f"ckpt={ckpt} names a preset whose weights are not published: give a folder with weights, or "
                f"ckpt=random:{ckpt} for random ones"
            )
        return _from_folder(huggingface.fetch(hub), None, loading, via)
    if huggingface.is_hub_name(ckpt):
        return _from_folder(huggingface.fetch(ckpt), None, loading, via)
    known = ["demo", *presets(), *(f"random:{name}" for name in presets()), *names("encoder")]
    raise UserError(f"ckpt={ckpt}: no such file or folder, and no such name.{suggest(ckpt, known)}")


def _call(ckpt: str, function: Callable[..., Any], settings: dict[str, Any]) -> Any:
    try:
        return function(**settings)
    except UserError:
        raise
    except Exception as error:  # whatever the encoder's own code raises
        raise UserError(f"ckpt={ckpt}: {one_line(error)}") from error


def _from_file(path: Path, loading: Loading, via: tuple[Path, ...]) -> nn.Module:
    if loading.model:
        _only(f"weights of {loading.model}", loading, "model", "prefix", "tokenizer")
        weights = checkpoint.read_weights(path, prefix=loading.prefix, trust=loading.trust)
        folder = Path(loading.model).expanduser()
        values = checkpoint.read_json(folder / "config.json") if folder.is_dir() else {}
        if values and "encoder" not in values:
            return _family_of(values, folder).pretrained(folder, loading, weights)  # type: ignore[no-any-return]
        module = spec_of(loading.model, loading.tokenizer).build() if values else _architecture(loading, via)
        checkpoint.load_strictly(module, weights, path)
        return module
    if (path.parent / "config.json").is_file() and path.suffix != ".npz":
        return _from_folder(path.parent, path, loading, via)
    for name in names("encoder"):
        family: Any = module_and_factory("encoder", name)[0]
        # Lightning's own ending says nothing of the family; who gives a prefix and no model means a known layout.
        if path.suffix in getattr(family, "SUFFIXES", ()) and (path.suffix != ".ckpt" or loading.prefix):
            _only(str(path), loading, *(("tokenizer",) if path.suffix == ".npz" else ("heads", "prefix")))
            return family.pretrained(path, loading)  # type: ignore[no-any-return]
    raise UserError(
        f"{path} does not say which model it belongs to: put its config.json beside it, or give encoder.model= (a "
        "preset, a folder with config.json, or package.module:function)"
    )


def _architecture(loading: Loading, via: tuple[Path, ...]) -> nn.Module:
    """The encoder of a preset or a function that `encoder.model=` names, with random weights."""
    model = loading.model
    if model in presets():
        return read_preset(model, loading.tokenizer).build()
    if via and not loading.trust:
        _refuse_code(model, via)
    if function := own_encoder(model):
        module = _call(model, function, {})
        if isinstance(module, nn.Module):
            return module
    raise UserError(
        f"encoder.model={model}: wanted a preset, a folder with config.json, or package.module:function that returns a "
        f"torch module.{suggest(model, presets())}"
    )


def _family_of(values: dict[str, Any], folder: Path) -> Any:
    """The module of the family that reads a configuration of transformers."""
    kinds: dict[str, Any] = {}
    for name in names("encoder"):
        module = module_and_factory("encoder", name)[0]
        kinds |= dict.fromkeys(getattr(module, "MODEL_TYPES", ()), module)
    kind = values.get("model_type")
    if kind is None:
        raise UserError(
            f"{folder / 'config.json'} does not describe an encoder: wanted evalkit's own encoder, clip, settings, or "
            "model_type as transformers writes it"
        )
    if kind not in kinds:
        raise UserError(
            f"{folder / 'config.json'}: no encoder family reads model_type {kind!r}.{suggest(str(kind), kinds)} "
            f"Known: {', '.join(sorted(kinds))}"
        )
    return kinds[kind]


def read_preset(name: str, tokenizer: Path | None = None) -> Spec:
    """The encoder that configs/NAME.yaml describes, with its own tokenizer or the one given."""
    known = presets()
    if name not in known:
        raise UserError(f"no preset named {name!r}.{suggest(name, known)} Known: {', '.join(known)}")
    values = read(known[name])
    own = Path(evalkit.__file__).parent / values["tokenizer"] if "tokenizer" in values else None
    return _spec(values, known[name], tokenizer or own)


def folder_of(ckpt: str) -> Path | None:
    """The folder of a local checkpoint, None for any other; adapters trained with it lie in its `adapters`."""
    path = DEMO if ckpt == "demo" else Path(ckpt).expanduser()
    return path if path.is_dir() else path.parent if path.is_file() else None


def _pointer(file: Path, via: tuple[Path, ...]) -> dict[str, Any]:
    """What an encoder.json holds: the frozen encoder that an adapter was trained on.

    Raises:
        UserError: it names none, or the files that led here, each naming the next, go round in a circle.
    """
    if file in via or len(via) >= DEEPEST:
        told = "is reached from itself" if file in via else f"is the end of a chain of more than {DEEPEST}"
        raise UserError(f"{file} {told}: every encoder.json on the way names another folder, and none an encoder")
    found = checkpoint.read_json(file)
    wanted = {"ckpt": str, "sha256": str, "seed": int, "settings": dict}
    given = {"seed": 0, "settings": {}} | found
    if wrong := [key for key, kind in wanted.items() if not isinstance(given.get(key), kind)]:
        raise UserError(f"{file} does not name an encoder: wanted ckpt and sha256, and its {wrong[0]} is of no use")
    return given


def spec_of(ckpt: str, tokenizer: Path | None = None, via: tuple[Path, ...] = ()) -> Spec:
    """What a preset or an evalkit checkpoint says of its encoder; nothing is imported for it.

    Args:
        ckpt: `random:NAME`, or a local folder or file.
        tokenizer: in place of its own.
        via: the encoder.json files that led here.

    Raises:
        UserError: it is neither.
    """
    if ckpt.startswith("random:"):
        return read_preset(ckpt.removeprefix("random:"))
    folder = folder_of(ckpt)
    if folder is not None and (folder / "encoder.json").is_file():
        file = folder.resolve() / "encoder.json"
        return spec_of(_pointer(file, via)["ckpt"], via=(*via, file))
    if folder is None or not (folder / "config.json").is_file():
        raise UserError(f"ckpt={ckpt} is no checkpoint that evalkit wrote, so a trained copy of it cannot be written")
    own = next((place for place in (folder / "tokenizer.model", folder / "tokenizer") if place.exists()), None)
    return _spec(checkpoint.read_json(folder / "config.json"), folder / "config.json", tokenizer or own)


def _from_folder(folder: Path, weights: Path | None, loading: Loading, via: tuple[Path, ...]) -> nn.Module:
    if (folder / "encoder.json").is_file():  # an adapter's folder, which only points to the frozen encoder
        file = folder.resolve() / "encoder.json"
        pointer = _pointer(file, via)
        settings = {key: value for key, value in pointer["settings"].items() if key != "trust"}  # the user's to give
        encoder = _open(pointer["ckpt"], pointer["seed"], settings, (*via, file), loading.trust)
        assert isinstance(encoder, nn.Module)
        if (found := checkpoint.sha256(encoder)) != pointer["sha256"]:
            raise UserError(
                f"{folder} was trained on encoder {pointer['ckpt']} with weights {pointer['sha256'][:12]}, which now "
                f"has weights {found[:12]}: train the adapter again, or give the encoder it was trained on"
            )
        return encoder
    if not (folder / "config.json").is_file():
        archives = sorted(folder.glob("*.npz"))
        if len(archives) == 1:
            return _from_file(archives[0], loading, via)
        raise UserError(f"{folder} is no checkpoint that evalkit can read: it has no config.json, nor one .npz")
    values = checkpoint.read_json(folder / "config.json")
    if "encoder" not in values:
        _only(str(folder), loading, *(("prefix", "tokenizer") if weights else ("tokenizer",)))
        own = checkpoint.read_weights(weights, prefix=loading.prefix, trust=loading.trust) if weights else None
        return _family_of(values, folder).pretrained(folder, loading, own)  # type: ignore[no-any-return]
    _only(str(folder), loading, "prefix", "tokenizer")
    module = spec_of(str(folder), loading.tokenizer).build()
    weights = weights or folder / "model.safetensors"
    read = checkpoint.read_weights(weights, prefix=loading.prefix, trust=loading.trust)
    checkpoint.load_strictly(module, read, weights)
    return module


def save_encoder(module: nn.Module, spec: Spec, folder: Path) -> None:
    """Writes a checkpoint folder that `ckpt=` takes: config.json, model.safetensors (fp16) and tokenizer.model."""
    checkpoint.save(module, folder / "model.safetensors", torch.float16)
    if spec.tokenizer is not None:
        if spec.tokenizer.is_dir():
            shutil.copytree(spec.tokenizer, folder / "tokenizer")
        else:
            shutil.copyfile(spec.tokenizer, folder / "tokenizer.model")
    (folder / "config.json").write_text(json.dumps(spec.to_json(), indent=2) + "\n", encoding="utf-8")


def _spec(values: Any, source: Path, tokenizer: Path | None) -> Spec:
    try:
        clip: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values["clip"].items()
        }
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
        return Spec(family, Clip(**clip), settings, tokenizer)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{source} does not describe an encoder of evalkit's: wanted encoder, clip, settings"
        ) from error
