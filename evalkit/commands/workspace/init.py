"""`evalkit init encoder|task|adapter NAME`: writes a template and its test."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
import unicodedata
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from evalkit import plugins
from evalkit.errors import DISTRIBUTION, UserError, suggest

KINDS: tuple[plugins.Kind, ...] = ("encoder", "task", "adapter")
# What other programs call a kind.
CALLED = {
    **dict.fromkeys(("model", "network", "backbone"), "encoder"),
    **dict.fromkeys(("dataset", "benchmark", "data"), "task"),
    **dict.fromkeys(("head", "probe"), "adapter"),
}
TRY = {
    "encoder": "evalkit run task=folder mini=true ckpt={}:encoder",
    "task": "evalkit run task=./{}.py mini=true ckpt=demo",
    "adapter": "evalkit run task=folder mini=true ckpt=demo adapter=./{}.py",
}


def main(words: list[str]) -> int:
    """0, after both files were written and the commands that try them were printed.

    Raises:
        UserError: the kind is unknown, the name can name no module or is taken, or a file is there already.
    """
    if len(words) != 2:
        raise UserError(f"init takes a kind ({', '.join(KINDS)}) and a name, got {' '.join(words) or 'nothing'}")
    kind = next((known for known in KINDS if known == words[0]), None)
    if kind is None:
        near = CALLED.get(words[0].lower())
        meant = f" Did you mean 'evalkit init {near} {words[1]}'?" if near else suggest(words[0], KINDS)
        raise UserError(f"init {words[0]}: not one of {', '.join(KINDS)}.{meant}")
    name = words[1].removesuffix(".py")
    check_name(kind, name)
    files = [Path(f"{name}.py"), Path(f"test_{name}.py")]
    if there := next((file for file in files if file.exists()), None):
        raise UserError(f"{there} is there already; nothing is overwritten: choose another name, or move it away")
    templates = Path(__file__).parent / "templates"
    for file, prefix in zip(files, ("", "test_"), strict=True):
        text = (templates / f"{prefix}own_{kind}.py").read_text(encoding="utf-8")
        file.write_text(text.replace(f"own_{kind}", name), encoding="utf-8")
    print(f"{files[0]}\n{files[1]}\n")
    print(f"{TRY[kind].format(name)}\npython -m pytest {files[1]}  # pip install pytest")
    return 0


def check_name(kind: plugins.Kind, name: str) -> None:
    """Raises UserError where a file of this name could not be imported, or would be taken for another."""
    if not (reason := _reason(kind, name)):
        return
    near = next((other for other in _near(name) if not _reason(kind, other)), "")
    raise UserError(f"init {kind} {name}: {reason}; choose another" + (f", such as {near}" if near else ""))


def _reason(kind: plugins.Kind, name: str) -> str:
    """Why a file cannot have this name; empty where it can."""
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii():
        return "a name has letters, digits and _, does not begin with a digit and is no word of Python's"
    if name.startswith("_"):
        return "Python gives names that begin with _ a meaning of their own"
    lower = name.lower()  # there are file systems on which Conftest.py is conftest.py
    if lower in ("conftest", "setup") or lower.startswith("test_") or lower.endswith("_test"):
        return f"{name}.py would be run by {'pip' if lower == 'setup' else 'pytest'} as a file of its own"
    if name in plugins.names(kind) or not plugins.names_function(f"{name}:{kind}"):
        return "evalkit has one of this name"
    if lower in {"evalkit", *map(str.lower, sys.stdlib_module_names), *_needed_modules()}:
        return "it would be imported in place of the module of this name"
    spec = importlib.util.find_spec(name)
    if spec and spec.origin and Path(spec.origin).parent != Path.cwd():  # without an origin: a folder with no module
        return f"Python has a module of this name ({spec.origin})"
    return ""


def _needed_modules() -> set[str]:
    """Modules that evalkit imports where they are installed, by the packages and extras that it states."""
    try:
        stated = metadata(DISTRIBUTION)
    except PackageNotFoundError:  # it was not installed
        return set()
    packages = {re.split(r"[^\w-]", need)[0].replace("-", "_").lower() for need in stated.get_all("Requires-Dist", [])}
    extras = {extra.replace("-", "_") for extra in stated.get_all("Provides-Extra", [])}
    return packages | {extra for extra in extras if any(package.startswith(extra) for package in packages)}


def _near(name: str) -> list[str]:
    """Names like this one that may be free, the nearest first."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"\W+", "_", plain).strip("_")
    bare = re.sub(r"^test_|_test$", "", plain, flags=re.IGNORECASE)
    return [bare, f"my_{bare}"] if bare else []
