"""`ckpt=` -> a frozen encoder: the demo, presets, local folders and files, the hub, other libraries, one's own code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import torch
from torch import nn

from evalkit import demo
from evalkit.api import Encoder, Loading, Positions
from evalkit.encoders._frames import LIBRARIES, OPEN_CLIP_CONFIG, library_backbone
from evalkit.encoders._spec import changes_of, read_pointer, read_preset, spec_of
from evalkit.errors import UserError, one_line, suggest
from evalkit.features.exchange.module import PREFIX, FeatureFiles
from evalkit.features.exchange.tables import NAMES
from evalkit.plugins import hint_of_own_code, module_and_factory, names, names_function, own_encoder
from evalkit.weights import checkpoint, huggingface, peft_adapters, strict
from evalkit.weights.presets import card, presets, read

MAX_HEADS = 1024
MAX_AHEAD = 1024
WEIGHTS = (".safetensors", ".pt", ".pth", ".tar", ".ckpt", ".bin", ".npz")  # endings of files that hold weights


def load_encoder(ckpt: str | Path, *, seed: int = 0, **settings: Any) -> Encoder:
    """Load the frozen encoder that `ckpt=` names, in evaluation mode, float32, on the CPU.

    Called with float video (B, T, C, H, W), scaled as `encoder.clip.normalize` does, it returns `.tokens`
    (B, T', S, D) and `.pooled` (B, E); `encode_text(list[str])` gives (B, E) where it has a text tower.

    Args:
        ckpt: `demo`; the name of a preset in configs/, which stands for its model on the Hugging Face hub; a folder
            that evalkit or transformers wrote; an official VideoPrism .npz, V-JEPA .pth.tar, V-JEPA 2 .pt, or file of
            VideoMAE v2, UMT or InternVideo2; a weights file with its config.json or open_clip_config.json beside it, or
            with `model=`; `organization/model` on the hub; `random:NAME` for a preset with random weights; `timm:NAME`
            or `open_clip:MODEL/TAG` of these libraries; `features:FOLDER` for the features of docs/features.md, which
            are looked up and not computed; `package.module:function` or an entry point's name for your own.
        seed: of random weights.
        settings: fields of `evalkit.api.Loading`, which are the keys of `encoder.*`; more are arguments for a function
            of your own, `ckpt` or `model`, or of `random:NAME` and of a preset as `model` the family's settings, and
            the clip's frames and size, in place of the preset's.

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
            encoder = _call(f"ckpt={ckpt}", function, settings)
        else:
            changes = changes_of(ckpt, settings)
            rest = {key: value for key, value in settings.items() if key not in changes}
            encoder = _load(ckpt, path, seed, _loading(rest | ({"trust": trust} if via else {})), via, changes)
    except OSError as error:  # no permission, a name that is too long, a disk that fails
        raise UserError(f"ckpt={ckpt[:200]} cannot be read: {error.strerror or error}") from error
    if not isinstance(encoder, nn.Module) or not isinstance(encoder, Encoder):
        raise UserError(f"ckpt={ckpt} gives a {type(encoder).__name__}; wanted a torch module with .clip and .dim")
    return encoder.eval().requires_grad_(False)


def _refuse_code(word: str, via: tuple[Path, ...]) -> None:
    """Refuse a function that a file names: it would be imported, and so run; only the user may name one.

    Raises:
        UserError: the word, read from the last of the files in `via`, names a function.
    """
    if names_function(word):
        raise UserError(
            f"{via[-1].parent} wants to run code, {word[:200]!r} ({via[-1].name}): add trust=true, or trust=True in "
            "Python, if you trust who made it"
        )


def _loading(settings: dict[str, Any]) -> Loading:
    """Check settings and make them a `evalkit.api.Loading`; a path may be text."""
    known = [field.name for field in fields(Loading)]
    if unknown := settings.keys() - set(known):
        near = suggest(min(unknown), known) or f" Known: {', '.join(known)}"
        raise UserError(f"unknown setting {min(unknown)[:60]!r} of an encoder.{near}")
    loading = Loading(**settings)
    if type(loading.heads) is not int or not 0 <= loading.heads <= MAX_HEADS:
        raise UserError(f"encoder.heads={loading.heads!r:.60}: expected a whole number from 0 to {MAX_HEADS}")
    if type(loading.ahead) is not int or not 0 <= loading.ahead <= MAX_AHEAD:
        raise UserError(f"encoder.ahead={loading.ahead!r:.60}: expected a whole number from 0 to {MAX_AHEAD}")
    if type(loading.text_tokens) is not int or loading.text_tokens < 0:
        raise UserError(f"encoder.text_tokens={loading.text_tokens!r:.60}: expected a whole number from 0 on")
    if loading.positions not in get_args(Positions):
        raise UserError(
            f"encoder.positions={loading.positions!r:.60}: expected one of {', '.join(get_args(Positions))}"
        )
    for name in ("model", "prefix", "tokenizer"):
        value = getattr(loading, name)
        if not isinstance(value, str) and not (name == "tokenizer" and (value is None or isinstance(value, Path))):
            raise UserError(f"encoder.{name}={str(value)[:60]}: expected text")
    parts = (loading.parts,) if isinstance(loading.parts, str | Path) else loading.parts
    loading = replace(loading, parts=tuple(Path(part).expanduser() for part in parts))
    if absent := [part for part in loading.parts if not part.is_file()]:
        raise UserError(f"encoder.parts: no such file: {absent[0]}")
    if loading.tokenizer is None:
        return loading
    tokenizer = Path(loading.tokenizer).expanduser()
    if not tokenizer.exists():
        raise UserError(f"encoder.tokenizer={tokenizer}: no such file or folder")
    return replace(loading, tokenizer=tokenizer)


def _refuse_ignored(what: str, loading: Loading, *names: str) -> None:
    """Refuse settings other than `names`, because they would have no effect on these weights."""
    for field in fields(loading):
        value = getattr(loading, field.name)
        if value != field.default and field.name not in ("trust", *names):
            raise UserError(f"encoder.{field.name}={value} has no effect on {what}: leave it out")


def _load(ckpt: str, path: Path, seed: int, loading: Loading, via: tuple[Path, ...], changes: Mapping[str, Any]) -> Any:
    if ckpt == "demo":
        return _from_folder(demo.FOLDER, None, loading, via)
    if ckpt == "none":
        raise UserError("ckpt=none has no encoder: only evalkit run and sweep accept it, for a language model alone")
    if ckpt.startswith(PREFIX):
        _refuse_ignored("features", loading)
        return FeatureFiles(Path(ckpt.removeprefix(PREFIX)).expanduser())
    if ckpt.startswith("random:"):
        _refuse_ignored("random weights", loading, "tokenizer")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return read_preset(ckpt.removeprefix("random:"), loading.tokenizer).changed(changes).build()
    if path.is_dir():
        return _from_folder(path, None, loading, via)
    if path.suffix == ".py" and (hint := hint_of_own_code(ckpt)):
        raise UserError(f"ckpt={ckpt}:{hint}")
    if path.is_file():
        return _from_file(path, loading, via, changes)
    family, _, name = ckpt.partition(":")
    if name and family in names("encoder"):
        library: Any = module_and_factory("encoder", family)[0]
        if not hasattr(library, "pretrained_name"):
            raise UserError(f"ckpt={ckpt}: {family} has no models by name")
        _refuse_ignored(f"a model of {family}", loading, "tokenizer")
        return library.pretrained_name(name, loading)
    if ckpt in presets():
        published = card(presets()[ckpt])
        if published.url:
            file = published.url.rpartition("/")[2]
            raise UserError(f"ckpt={ckpt}: its weights are on no hub: fetch {published.url} and give ckpt={file}")
        if (library := str(read(presets()[ckpt])["encoder"])) in LIBRARIES:
            library_backbone(library)  # before gigabytes are fetched
        hub = published.hub
        if not hub:
            raise UserError(
                f"ckpt={ckpt} names a preset whose weights are not published: give a folder with weights, or "
                f"ckpt=random:{ckpt} for random ones"
            )
        ahead = loading.ahead or read(presets()[ckpt])["settings"].get("ahead", 0)
        return _from_folder(huggingface.fetch(hub), None, replace(loading, ahead=ahead), via)
    if huggingface.is_hub_name(ckpt):
        return _from_folder(huggingface.fetch(ckpt), None, loading, via)
    known = ["demo", *presets()]
    random = [f"random:{name}" for name in presets()]
    on_hub = re.search(r"^(?:hf[:/]+|hf-hub:|https?://(?:www\.)?(?:huggingface\.co|hf\.co)/)([\w.-]+/[\w.-]+)", ckpt)
    if on_hub:
        raise UserError(f"ckpt={ckpt}: a model of the Hugging Face hub is named alone: ckpt={on_hub[1]}")
    if code := hint_of_own_code(ckpt):
        raise UserError(f"ckpt={ckpt}: no such file or folder, and no such name.{code}")
    near = suggest(ckpt, random if ckpt.startswith("random") else known)
    raise UserError(f"ckpt={ckpt}: no such file or folder, and no such name.{near} `evalkit list encoders` shows all")


def _call(word: str, function: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    try:
        return function(**settings)
    except UserError:
        raise
    except Exception as error:  # whatever the encoder's own code raises
        raise UserError(f"{word}: {one_line(error)}") from error


def _from_file(
    path: Path, loading: Loading, via: tuple[Path, ...], changes: Mapping[str, Any] = MappingProxyType({})
) -> nn.Module:
    beside = (path.parent / OPEN_CLIP_CONFIG).is_file() and not (path.parent / "config.json").is_file()
    if loading.model.startswith("open_clip:") or (beside and not loading.model):
        _refuse_ignored("weights of open_clip", loading, "model", "prefix")
        library: Any = module_and_factory("encoder", "open_clip")[0]
        return library.pretrained_file(path, loading)  # type: ignore[no-any-return]
    if loading.model:
        _refuse_ignored(f"weights of {loading.model}", loading, "model", "prefix", "tokenizer")
        weights = checkpoint.read_weights(path, prefix=loading.prefix, trust=loading.trust)
        folder = Path(loading.model).expanduser()
        values = checkpoint.read_json(folder / "config.json") if folder.is_dir() else {}
        if values and "encoder" not in values:
            return _family_of(values, folder).pretrained(folder, loading, weights)  # type: ignore[no-any-return]
        module = spec_of(loading.model, loading.tokenizer).build() if values else _architecture(loading, via, changes)
        strict.load_strictly(module, weights, path)
        return module
    if known := _recognized(path, loading.trust):  # whatever lies beside
        _refuse_ignored(str(path), loading, "heads", "prefix", "tokenizer", "parts", "text_tokens")
        return known.pretrained(path, loading)  # type: ignore[no-any-return]
    if (path.parent / "config.json").is_file() and path.suffix != ".npz":
        return _from_folder(path.parent, path, loading, via)
    for name in names("encoder"):
        family: Any = module_and_factory("encoder", name)[0]
        # Lightning's own ending says nothing of the family; who gives a prefix and no model means a known layout.
        if hasattr(family, "recognizes"):
            continue
        if path.suffix in getattr(family, "SUFFIXES", ()) and (path.suffix != ".ckpt" or loading.prefix):
            of_vjepa = ("heads", "positions", "prefix", "ahead")
            _refuse_ignored(str(path), loading, *(("tokenizer",) if path.suffix == ".npz" else of_vjepa))
            return family.pretrained(path, loading)  # type: ignore[no-any-return]
    if path.suffix not in WEIGHTS:
        mend = " unpack it first;" if path.suffix in (".zip", ".gz", ".tgz", ".xz", ".7z", ".rar") else ""
        raise UserError(f"{path} does not end as a checkpoint does:{mend} wanted a folder, or {', '.join(WEIGHTS)}")
    raise UserError(
        f"{path} does not say which model it belongs to: put its config.json beside it, or give encoder.model= (a "
        "preset, a folder with config.json, or package.module:function)"
    )


def _architecture(loading: Loading, via: tuple[Path, ...], changes: Mapping[str, Any]) -> nn.Module:
    """Build the encoder that `encoder.model=` names, a preset or a function, as these settings say; random weights."""
    model = loading.model
    if model in presets():
        return read_preset(model, loading.tokenizer).changed(changes).build()
    if via and not loading.trust:
        _refuse_code(model, via)
    if function := own_encoder(model, "encoder.model"):
        module = _call(f"encoder.model={model}", function, changes)
        if isinstance(module, nn.Module):
            return module
    if hint := hint_of_own_code(model, "encoder.model"):
        raise UserError(f"encoder.model={model}:{hint}")
    raise UserError(
        f"encoder.model={model}: wanted a preset, a folder with config.json, or package.module:function that returns a "
        f"torch module.{suggest(model, presets())}"
    )


def _families() -> dict[str, Any]:
    """The modules of the families by the model_type of transformers' configurations that they read."""
    kinds: dict[str, Any] = {}
    for name in names("encoder"):
        module = module_and_factory("encoder", name)[0]
        kinds |= dict.fromkeys(getattr(module, "MODEL_TYPES", ()), module)
    return kinds


def _recognized(path: Path, trust: bool) -> Any:
    """The module of the family whose names and shapes a file's weights have; None where they are of none."""
    outline: dict[str, torch.Tensor] | None = None
    for name in names("encoder"):
        family: Any = module_and_factory("encoder", name)[0]
        if path.suffix in getattr(family, "SUFFIXES", ()) and hasattr(family, "recognizes"):
            outline = checkpoint.read_outline(path, trust=trust) if outline is None else outline
            if family.recognizes(outline):
                return family
    return None


def _family_of(values: dict[str, Any], folder: Path) -> Any:
    """The family's module for a configuration of transformers, by its model_type."""
    kinds, kind = _families(), values.get("model_type")
    if kind is None:
        raise UserError(
            f"{folder / 'config.json'} does not describe an encoder: wanted evalkit's own encoder, clip, settings, or "
            "model_type as transformers writes it"
        )
    if str(kind) not in kinds:
        raise UserError(
            f"{folder / 'config.json'}: no encoder family reads model_type {str(kind)[:60]!r}."
            f"{suggest(str(kind), kinds)} Known: {', '.join(sorted(kinds))}"
        )
    return kinds[str(kind)]


def _weights_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in WEIGHTS and file.is_file())


def _from_folder(folder: Path, weights: Path | None, loading: Loading, via: tuple[Path, ...]) -> nn.Module:
    name = "ckpt=demo" if folder == demo.FOLDER else str(folder)
    if weights is None:
        peft_adapters.refuse_folder(folder, str(folder))
    if (folder / "encoder.json").is_file():  # an adapter's folder, which only points to the frozen encoder
        file = folder.resolve() / "encoder.json"
        pointer = read_pointer(file, via)
        settings = {key: value for key, value in pointer["settings"].items() if key != "trust"}  # the user's to give
        encoder = _open(pointer["ckpt"], pointer["seed"], settings, (*via, file), loading.trust)
        assert isinstance(encoder, nn.Module)
        if (sha256 := checkpoint.sha256(encoder)) != pointer["sha256"]:
            raise UserError(
                f"{folder} was trained on encoder {pointer['ckpt']} with weights {pointer['sha256'][:12]}, which now "
                f"has weights {sha256[:12]}: train the adapter again, or give the encoder it was trained on"
            )
        return encoder
    if not (folder / "config.json").is_file():
        if (folder / OPEN_CLIP_CONFIG).is_file():
            _refuse_ignored(name, loading)
            library: Any = module_and_factory("encoder", "open_clip")[0]
            return library.pretrained_name(str(folder), loading)  # type: ignore[no-any-return]
        if any(NAMES.fullmatch(file.name) for file in folder.iterdir()):
            raise UserError(f"ckpt={folder} holds files of features, and no encoder: give ckpt={PREFIX}{folder}")
        archives = sorted(folder.glob("*.npz"))
        if len(archives) == 1:
            return _from_file(archives[0], loading, via)
        files = _weights_in(folder)
        of_file = f"; its weights alone are ckpt={files[0]} encoder.model=PRESET" if files else ""
        raise UserError(
            f"{folder} is not a checkpoint that evalkit can read: it has no config.json, nor one .npz{of_file}"
        )
    values = checkpoint.read_json(folder / "config.json")
    if "encoder" not in values:
        if weights is None and str(values.get("model_type")) not in _families():  # its code lies beside it
            files = _weights_in(folder)
            if len(files) == 1 and _recognized(files[0], loading.trust):
                return _from_file(files[0], loading, via)
        family = _family_of(values, folder)
        taken = ("tokenizer", *getattr(family, "LOADING", ()), *(("prefix",) if weights else ()))
        _refuse_ignored(name, loading, *taken)
        given = checkpoint.read_weights(weights, prefix=loading.prefix, trust=loading.trust) if weights else None
        return family.pretrained(folder, loading, given)  # type: ignore[no-any-return]
    _refuse_ignored(name, loading, "prefix", "tokenizer")
    spec, file = spec_of(str(folder), loading.tokenizer), weights or folder / "model.safetensors"
    if file.is_file():
        strict.refuse_oversized(spec.build, file.stat().st_size, folder / "config.json")
    module = spec.build()
    strict.load_strictly(module, checkpoint.read_weights(file, prefix=loading.prefix, trust=loading.trust), file)
    return module
