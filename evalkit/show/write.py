"""Pages of samples on disk: one file, or a folder with one per sample and a list of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from evalkit.errors import UserError, counted
from evalkit.results.rows import Row
from evalkit.runtime import atomic
from evalkit.runtime.filesystem import check_writable
from evalkit.runtime.progress import track
from evalkit.show.drawing import escaped
from evalkit.show.inside import Inside
from evalkit.show.opened import Opened
from evalkit.show.page import BEGIN, document, render_page
from evalkit.show.sample import short, verdict

INDEX = "index.html"


def write_pages(opened: Opened, rows: Sequence[Row], out: Path, inside: Inside) -> Path:
    """Writes the samples' pages and returns the one to open.

    Args:
        opened: the run.
        rows: of the samples.
        inside: of the run.
        out: a file that ends in .html for one sample; else a folder. Pages of an earlier call are replaced, no other
            file is.

    Raises:
        UserError: several samples are to go into one file, another file is in the way, or nothing can be written there.
    """
    if out.suffix.lower() in (".html", ".htm"):
        if len(rows) > 1:
            raise UserError(f"out={out}: {len(rows):,} samples have a page each: give a folder, as out={out.stem}")
        check_writable(out.absolute().parent, f"out={out}")  # now rather than after the clips were decoded
        _write(out, render_page(opened, rows[0], out, inside))
        return out
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is a file, and no .html: name a folder, or FILE.html for one sample")
    check_writable(out, f"out={out}")
    names = [_name(row.id) for row in rows]
    for name in (INDEX, *names):
        _check_free(out / name)
    for place, row in enumerate(track(rows, "pages", len(rows))):
        around = [(names[place - 1], "before")] if place else []
        around += [(INDEX, "all samples"), *([(names[place + 1], "next")] if place + 1 < len(rows) else [])]
        links = "".join(f'<a href="{quote(name)}">{title}</a>' for name, title in around)
        _write(out / names[place], render_page(opened, row, out / names[place], inside, f"<nav>{links}</nav>"))
    lines = [
        f'<tr><td><a href="{quote(name)}">{escaped(row.id)}</a></td><td>{escaped(verdict(opened, row))}</td>'
        f"<td>{escaped(short(opened, row.prediction, opened.examples.get(row.id))[:200])}</td></tr>"
        for name, row in zip(names, rows, strict=True)
    ]
    title = f"{counted(len(rows), 'sample')} of {opened.folder}"
    head = "<thead><tr><th>sample</th><th></th><th>predicted</th></tr></thead>"
    _write(out / INDEX, document(title, f"<h1>{escaped(title)}</h1><table>{head}{''.join(lines)}</table>"))
    return out / INDEX


def _name(id: str) -> str:
    """The name of a sample's page: its id where that is a name on every disk, else with a hash of it."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in id)[:80].strip(".")
    if plain == id and plain.lower() != "index":
        return f"{plain}.html"
    return f"{plain}-{hashlib.sha256(id.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}.html"


def _check_free(file: Path) -> None:
    """Raises UserError where a file is there that is no page of a sample."""
    if file.is_dir():
        raise UserError(f"out={file} is a folder")
    if file.exists():
        with file.open("rb") as opened:
            begins = opened.read(len(BEGIN.encode()))
        if begins != BEGIN.encode():
            raise UserError(f"out={file} is there, and was not made by evalkit show: nothing is overwritten")


def _write(file: Path, html: str) -> None:
    _check_free(file)
    atomic.write(file, html.encode())
