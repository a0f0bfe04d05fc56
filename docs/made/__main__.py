"""All pages of the site in one folder, those among them that are made from the code, so that they cannot drift.

    python -m docs.made build
    mkdocs build --strict --config-file build/mkdocs.yml

is `make docs`: the site is build/site. The README is the first page; CONTRIBUTING.md and others at the top of the
repository are pages, too.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from docs.made.data import data_index, data_page
from docs.made.protocols import picture, protocols_page, views_page
from docs.made.reference import ROOT, cards_page, encoders_page, keys_page, record_page
from docs.made.text import lists
from evalkit import plugins

# Files at the top of the repository that are pages, by what they are called on the site.
AT_THE_TOP = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "architecture.md": "ARCHITECTURE.md",
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
}
# Pages that are made here, by their heading in docs/made/README.md, to which the documents link.
MADE = {
    "data": "data/index.md",
    "keys": "keys.md",
    "record": "record.md",
    "views": "views.md",
    "protocols": "protocols.md",
    "encoders": "encoder-list.md",
    "cards": "card-list.md",
}


def main(words: Sequence[str]) -> int:
    """Writes every page of the site into FOLDER/docs, as Python's Markdown reads them, and FOLDER/mkdocs.yml."""
    folder = Path(words[0]) / "docs"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("made", "*.yml"))
    site = (ROOT / "docs/mkdocs.yml").read_text(encoding="utf-8")
    of_data = "".join(f"          - {name}: data/{name}.md\n" for name in plugins.names("task"))
    (folder.parent / "mkdocs.yml").write_text(
        site.replace("      - Data: data/\n", f"      - Data:\n          - data/index.md\n{of_data}"), encoding="utf-8"
    )
    for name, content in pages().items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content, encoding="utf-8")
    for file in folder.glob("*.md"):
        file.write_text(lists(links(file.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


def links(markdown: str) -> str:
    """The text with links out of docs/, and to pages that are made, turned to where they lead on the site."""
    for heading, page in MADE.items():
        markdown = markdown.replace(f"](made/README.md#{heading})", f"]({page})")
    for name, file in AT_THE_TOP.items():
        markdown = markdown.replace(f"](../{file}", f"]({name}")
    return markdown


def pages() -> dict[str, str]:
    """Every page that is made here, by its name on the site."""
    tasks = [*plugins.names("task")]
    made = {name: _at_the_top(file) for name, file in AT_THE_TOP.items()}
    made |= {f"data/{name}.md": data_page(name) for name in tasks}
    made["data/index.md"] = data_index(tasks)
    made |= {"views.svg": picture(), "views.md": views_page(), "protocols.md": protocols_page(tasks)}
    made |= {"keys.md": keys_page(), "record.md": record_page()}
    made |= {"encoder-list.md": encoders_page(), "card-list.md": cards_page()}
    return made


def _at_the_top(file: str) -> str:
    text = (ROOT / file).read_text(encoding="utf-8").replace("](docs/", "](")
    for name, other in AT_THE_TOP.items():
        text = text.replace(f"]({other})", f"]({name})")
    return re.sub(r"\[([^]]+)\]\(leaderboard/README\.md\)", r"`\1` in the repository", text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
