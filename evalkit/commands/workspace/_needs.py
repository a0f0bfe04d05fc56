"""`evalkit doctor task=NAME`: what a run needs of this machine, and whether it is here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from evalkit import encoders
from evalkit.api import Data
from evalkit.commands.workspace import doctor
from evalkit.config import keys, parse
from evalkit.config.config import Config
from evalkit.errors import DISTRIBUTION, UserError, counted, install, suggest
from evalkit.language import models as language_models
from evalkit.pipeline import task_data
from evalkit.plugins import names_own_encoder
from evalkit.results.sizes import SPLITS, size_differences
from evalkit.results.table import columns, count
from evalkit.runtime.machine import free_memory
from evalkit.runtime.progress import phase
from evalkit.video.media import exists, shown
from evalkit.weights import huggingface, presets


def main(words: Sequence[str]) -> int:
    """Prints what a run of these words needs: 1 where something of it is missing, else 0."""
    found = examine(words)
    print(columns([(what, _state(told, wrong), told) for what, told, wrong in found]))
    missing = sum(wrong for _, _, wrong in found)
    print(f"\n{missing} missing" if missing else "\nnothing is missing")
    return 1 if missing else 0


def _state(told: str, wrong: bool) -> str:
    """What the line of a need begins with; what is not here and only other words would ask for is no fault."""
    return "missing" if wrong else "not needed" if told.startswith("none") and told != "none" else "here"


def examine(words: Sequence[str]) -> list[tuple[str, str, bool]]:
    """What a run of these words needs: what it is, what was found of it, and whether it is missing.

    Raises:
        UserError: no run takes the words.
    """
    given = {word.partition("=")[0] for word in words}
    config = parse.resolve("run", [*words, *(() if "ckpt" in given else ("ckpt=demo",))], called="doctor")
    stated = keys.stated_data(config.options.task)
    rows = [_needed(need, asked, config) for need, asked in (dict(stated.needs) | _libraries(config)).items()]
    rows.append(("data", *_data(config, stated)))
    if "ckpt" in given:
        load_encoder = partial(encoders.load_encoder, config.options.ckpt, seed=config.options.seed, **config.encoder)
        rows.append(("encoder", *_loaded(config.options.ckpt, load_encoder)))
    if config.options.lm:
        lm, precision = config.options.lm, config.options.lm_precision
        rows.append(("language model", *_loaded(lm, lambda: language_models.load(lm, precision=precision)[0])))
    if config.options.adapter_from not in ("", "none"):
        there = Path(config.options.adapter_from).expanduser().is_dir()
        rows.append(("adapter", config.options.adapter_from + ("" if there else ": no such folder"), not there))
    return rows


def _needed(need: str, asked: str, config: Config) -> tuple[str, str, bool]:
    """A row on an extra, or on WordNet; what other words would ask for is not missing."""
    told = doctor.wordnet() if need == "WordNet" else _extra(need)
    if need == "captions" and not told.startswith("none"):
        told = doctor.java()
    wanted = all(_holds(word, config) for word in asked.split())
    return need if wanted else f"{need} (with {asked})", told, wanted and told.startswith("none")


def _holds(word: str, config: Config) -> bool:
    """Whether the configuration has the value that a word gives, by itself or as the task's default."""
    key, _, value = word.partition("=")
    if key == "mini":
        return str(config.options.mini).lower() == value
    default = keys.known_keys("check", config.options.task)[key].default
    return str(config.data.get(key.removeprefix("data."), default)).lower() == value


def _libraries(config: Config) -> dict[str, str]:
    """Extras that the words ask for, beside the task's own: decoders, libraries of encoders, formats of files."""
    options, videos = config.options, str(config.data.get("videos", ""))
    family, _, name = options.ckpt.partition(":")
    known = presets.presets()
    built_by = family if name else presets.read(known[family])["encoder"] if family in known else ""
    asked: dict[str, bool] = {
        options.decoder: options.decoder != "pyav",
        built_by: built_by in ("timm", "open_clip"),
        "gguf": options.lm.endswith(".gguf"),
        "parquet": videos.endswith(".parquet"),
        "s3": videos.startswith("s3://"),
        "url": videos.startswith(("http://", "https://")),
    }
    asked |= {str(tracker): tracker != "csv" for tracker in options.log}
    return {extra: "" for extra, wanted in asked.items() if wanted}


def _extra(name: str) -> str:
    """The installed versions of an extra's packages; or what installs it."""
    marker = re.compile(rf"extra == ['\"]{name.replace('_', '[_-]')}['\"]")  # metadata may have a hyphen for _
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return f"not known, as evalkit is not installed: {install(name)}"
    needed = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if marker.search(line)]
    found = {package: doctor.package_version(package) for package in needed}
    if any(told.startswith("none") for told in found.values()):
        return f"none: {install(name)}"
    return ", ".join(f"{package} {told}" for package, told in found.items())


def _data(config: Config, stated: Data) -> tuple[str, bool]:
    """What lies at `data.root=`, as far as the task's own files tell; no video is opened."""
    if config.options.mini:
        return "generated on first use", False
    try:
        task = task_data.load_task(config)
    except UserError as error:
        wanted = f"; expected there: {', '.join(stated.files)}" if stated.files else ""
        return f"{error}{wanted}{f', from {stated.source}' if stated.source not in ('', 'your own') else ''}", True
    splits = {name: getattr(task, name) for name in SPLITS if getattr(task, name)}
    counts = ", ".join(f"{name} {len(examples):,}" for name, examples in splits.items())
    videos = dict.fromkeys(example.video for examples in splits.values() for example in examples)
    absent = [] if task.prepare_videos else [video for video in videos if not exists(video)]
    told = [f"examples: {counts}"]
    told += [
        f"{split['split']} has {split['examples']:,} and {split['published']:,} were published"
        for split in size_differences(task)
    ]
    told += [f"{len(absent):,} of {counted(len(videos), 'video')} missing, e.g. {shown(absent[0])}"] if absent else []
    return "; ".join(told), bool(absent or (len(told) > 1 and task_data.meant_size(config) is None))


def _loaded(word: str, load: Callable[[], Any]) -> tuple[str, bool]:
    """What there is of a model that a word names; one that is on this machine is loaded, as a run loads it.

    One whose files are larger than the memory that is free is not: the system would end this command without a word.
    """
    told, absent = _weights(word)
    path = Path(word).expanduser()
    here = path.exists() or told.endswith("in the cache") or names_own_encoder(word)
    if absent or not here:
        return told, absent
    if path.exists() and _bytes(path) > (free := free_memory()):
        return f"{told}; not loaded: {doctor.size(free)} of memory are free", False
    try:
        with phase(f"load {word}"):
            model = load()
    except UserError as error:
        return str(error), True
    return f"{told}; its weights fit: {count(sum(value.numel() for value in model.parameters()))} parameters", False


def _bytes(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")))


def _weights(word: str) -> tuple[str, bool]:
    """What there is of a checkpoint, or of a language model, that a word names; nothing is loaded."""
    path, cards = Path(word).expanduser(), presets.cards()
    if word in ("demo", "none") or word.startswith(("random:", "http://", "https://")):
        return word, False
    if path.exists():
        return f"{path}, {doctor.size(_bytes(path))}", False
    if word in cards and not cards[word].hub:
        place = cards[word].url
        return f"{word}: {f'fetch {place} and give ckpt=FILE' if place else 'its weights are not published'}", True
    hub = cards[word].hub if word in cards else word
    if huggingface.is_hub_name(hub):
        size = f", {4 * cards[word].parameters / 1e9:.1f} GB in float32" if word in cards else ""
        cached = huggingface.is_cached(hub)
        return f"{hub}: {'in the cache' if cached else f'will be fetched from the hub{size}'}", False
    if ":" in word:  # a library's model, or a function of the user's own
        return word, False
    return f"{word}: no such file, folder or name.{suggest(word, cards)}", True
