"""Markdown: plain words, tables and trees as such, and what GitHub reads made what Python's Markdown reads."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence


def text(words: str) -> str:
    """Plain words as Markdown: what would be markup is escaped, but for what stands in backticks; URLs are links."""
    parts = re.split(r"(`[^`]*`|https?://[^\s,;)`'\"]*[\w/])", words)
    for number, part in enumerate(parts):
        if number % 2 == 0:
            parts[number] = re.sub(r"([*_|\[\]])", r"\\\1", part).replace("<", "&lt;")
        elif part.startswith("http"):
            parts[number] = f"<{part}>"
    return "".join(parts)


def table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    """A table; `|` within a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[re.sub(r"(?<!\\)[|]", r"\\|", cell) for cell in row] for row in lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def prose(doc: str | None) -> str:
    """A docstring without its first line and its sections of arguments, as paragraphs of Markdown."""
    kept, _, _ = re.sub(r"\n(Args|Attributes|Raises|Returns):\n", "\0", inspect.cleandoc(doc or "")).partition("\0")
    return text(kept.partition("\n")[2].strip())


def tree(files: Mapping[str, str]) -> str:
    """Paths as a tree: a folder, and what lies in it indented below."""
    lines: list[str] = []
    above: tuple[str, ...] = ()
    for path in (one for name in files for one in name.split(", ")):
        *folders, last = path.split("/")
        shared = next((n for n, (a, b) in enumerate(zip(above, folders, strict=False)) if a != b), len(above))
        shared = min(shared, len(folders))
        lines += [f"{'    ' * n}{folder}/" for n, folder in enumerate(folders) if n >= shared]
        lines += [f"{'    ' * len(folders)}{last}"] if last else []
        above = tuple(folders)
    return "\n".join(lines) + "\n"


def lists(markdown: str) -> str:
    """The text with a blank line before each list, and what belongs to an item indented by two more blanks."""
    lines: list[str] = []
    fenced = within = parted = False  # parted: a blank line stood in the item
    for line in markdown.splitlines():
        fenced ^= line.lstrip().startswith("```")
        if line.startswith("* ") and not fenced:
            if (parted or not within) and lines and lines[-1].strip():
                lines.append("")
            within, parted = True, False
        elif line.strip() and not line.startswith(" "):
            within = False
        parted |= not line.strip()
        lines.append(f"  {line}" if within and line.startswith("  ") else line)
    return "\n".join(lines) + "\n"
