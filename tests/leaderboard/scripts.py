"""The page's scripts without a browser, in node."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "leaderboard/page/scripts"
MISSING = "needs node (Debian: apt-get install nodejs)"

# Elements as lists of tag, attributes and children, in place of base.js's.
STUB = """
const element = (tag, attributes, ...children) => [tag, attributes ?? {}, children.flat(Infinity).filter(Boolean)];
const el = (...all) => ({ el: element(...all) }), svg = el;
"""


def available() -> bool:
    """Whether node is installed."""
    return shutil.which("node") is not None


def evaluate(folder: Path, expression: str, *scripts: str, stub: str = STUB) -> Any:
    """What an expression is after these scripts and those of base.js that need no page.

    Args:
        folder: for a file.
        expression: JavaScript whose value JSON can hold.
        scripts: their names.
        stub: what they find in place of a page.
    """
    base = (FOLDER / "base.js").read_text()
    words = base[base.index("// --- words and numbers") :]
    code = [stub, words, *((FOLDER / name).read_text() for name in scripts)]
    file = folder / "all.js"
    file.write_text("\n".join([*code, f"console.log(JSON.stringify({expression}));"]))
    ended = subprocess.run(["node", str(file)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
