"""`evalkit init encoder|task|adapter NAME`: writes a template and its test."""

from __future__ import annotations

import importlib.util
import keyword
from pathlib import Path

from evalkit import plugins
from evalkit.errors import UserError, suggest

KINDS: tuple[plugins.Kind, ...] = ("encoder", "task", "adapter")
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
        raise UserError(f"init {words[0]}: not one of {', '.join(KINDS)}.{suggest(words[0], KINDS)}")
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
    print(f"{TRY[kind].format(name)}\npytest {files[1]}")
    return 0


def check_name(kind: plugins.Kind, name: str) -> None:
    """Raises UserError where a file of this name could not be imported, or would be taken for another."""
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii():
        raise UserError(
            f"init {kind} {name}: wanted a name of letters, digits and _, which does not begin with a digit"
        )
    if name in plugins.names(kind) or not plugins.names_function(f"{name}:{kind}"):
        raise UserError(f"init {kind} {name}: evalkit has one of this name; choose another")
    spec = importlib.util.find_spec(name)
    if spec and Path(spec.origin or "").parent != Path.cwd():
        raise UserError(f"init {kind} {name}: Python has a module of this name ({spec.origin}); choose another")
