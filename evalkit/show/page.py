"""One sample as a self-contained html page: what the terminal shows, and the clip as the encoder saw it.

The page has no scripts, and forbids all: texts of a result from elsewhere are shown, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from evalkit.errors import UserError, in_line
from evalkit.results.rows import Row
from evalkit.show.clip import Seen, player, seen
from evalkit.show.opened import Opened
from evalkit.show.picture import png
from evalkit.show.sample import Cell, Part, parts, verdict

BEGIN = "<!doctype html>\n<!-- made by evalkit show -->\n"
POLICY = "default-src 'none'; img-src data:; media-src 'self' file: data:; style-src 'unsafe-inline'"
SMALL = 112  # pixels of a frame, below which each is shown as a square


def render_page(opened: Opened, row: Row, place: Path, links: str = "") -> str:
    """The page of a sample.

    Args:
        opened: the run.
        row: of the sample.
        place: where the page will lie, from where it finds the video.
        links: html that leads to other samples.
    """
    how = verdict(opened, row)
    kind = how if how in ("right", "wrong", "failed") else "other"
    body = [f'<h1>{escaped(row.id)} <span class="{kind}">{escaped(how)}</span></h1>', *map(_part, parts(opened, row))]
    body += [f'<p class="soft">{escaped(remark)}</p>' for remark in opened.remarks]
    body += [_clip(opened, row), _video(opened, row, place)]
    return document(f"{row.id}, {opened.record['encoder']['name']}", links + "\n".join(body))


def document(title: str, body: str) -> str:
    """A page with this title and html."""
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return (
        f'{BEGIN}<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{escaped(title)}</title>'
        f"<style>\n{css}</style></head><body>\n{body}\n</body></html>\n"
    )


def escaped(text: object) -> str:
    """Text as html, in which surrogates, which no file of UTF-8 holds, are question marks."""
    return escape(str(text).encode("utf-8", "replace").decode())


def _section(title: str, html: str, name: str = "") -> str:
    mark = f' id="{name}"' if name else ""
    return f"<section{mark}><h2>{escaped(title)}</h2>{html}</section>"


def _part(part: Part) -> str:
    rows = []
    for row in part.rows:
        kind = row[0] if part.head and isinstance(row[0], str) else ""
        cells = "".join(f"<td>{_cell(cell)}</td>" for cell in row)
        rows.append(f'<tr class="{escaped(kind.replace(",", ""))}">{cells}</tr>')
    head = "".join(f"<th>{escaped(title)}</th>" for title in part.head)
    head = f"<thead><tr>{head}</tr></thead>" if part.head else ""
    note = f'<p class="soft">{escaped(part.note)}</p>' if part.note else ""
    if any(isinstance(cell, list) and any(word.shared > 1 for word in cell) for row in part.rows for cell in row):
        levels = " ".join(f'<mark class="n{n}">{n} words</mark>' for n in (2, 3, 4))
        note += f'<p class="soft">Marked: n-grams that both have, of {levels}.</p>'
    return _section(part.title.capitalize(), f'<div class="wide"><table>{head}{"".join(rows)}</table></div>{note}')


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escaped(cell)
    runs = groupby(cell, key=lambda word: word.shared)
    texts = [(shared, escaped(" ".join(word.text for word in words))) for shared, words in runs]
    return " ".join(f'<mark class="n{shared}">{text}</mark>' if shared > 1 else text for shared, text in texts)


# --- the clip and its video ------------------------------------------------------------------------------------------


def _clip(opened: Opened, row: Row) -> str:
    title = "The clip as the encoder saw it"
    try:
        clip = seen(opened, row.id)
    except UserError as error:
        return _section(title, f"<p>Its frames cannot be shown: {escaped(in_line(error))}</p>", "seen")
    views = clip.views
    said = [
        f"{views.frames} frames of {views.size} x {views.size} pixels, sampling {views.sampling}, "
        f"{views.clips} x {views.crops} views, resize {views.resize}"
        + (f", share {views.share:g}" if views.share != 1 else "")
        + f"; before they are normalized. Read by {clip.clips[0].decoder}."
    ]
    if clip.windows > len(clip.clips):
        said.append(f"The first {len(clip.clips)} of {clip.windows:,} windows.")
    figures = "".join(_figures(clip))
    return _section(title, f'<p class="soft">{escaped(" ".join(said))}</p>{figures}', "seen")


def _figures(clip: Seen) -> Sequence[str]:
    """Each view's frames with their times."""
    size = clip.views.size or 0
    figures = []
    for number, decoded in enumerate(clip.clips, 1):
        for view, pixels in enumerate(decoded.pixels.permute(0, 1, 3, 4, 2).numpy()):
            temporal, crop = divmod(view, clip.views.crops)
            times = decoded.times[temporal]
            names = [f"window {number}"] if clip.windows else []
            names += [f"clip {temporal + 1} of {clip.views.clips}"] if clip.views.clips > 1 else []
            names += [f"crop {crop + 1} of {clip.views.crops}"] if clip.views.crops > 1 else []
            frames = "".join(
                f'<div class="frame"><div class="look"><img src="{png(frame)}" alt="frame at {time:.2f} s"></div>'
                f"<small><span>{time:.2f} s</span></small></div>"
                for frame, time in zip(pixels, times, strict=True)
            )
            caption = f"<figcaption>{', '.join(names)}</figcaption>" if names else ""
            kind = "frames small" if size < SMALL else "frames"
            style = f"--frame: {min(max(size, 80), 150)}px"
            figures.append(f'<figure>{caption}<div class="{kind}" style="{style}">{frames}</div></figure>')
    return figures


def _video(opened: Opened, row: Row, place: Path) -> str:
    example = opened.examples.get(row.id)
    if example is None:
        return _section("The video", f"<p>{escaped(row.video)}: the task's files are not here.</p>", "video")
    try:
        found = player(example, place)
    except UserError as error:
        return _section("The video", f"<p>{escaped(row.video)}: {escaped(in_line(error))}</p>", "video")
    element = f'<video controls muted preload="metadata" src="{escaped(found.source)}"></video>' if found.source else ""
    return _section("The video", f'{element}<p class="soft">{escaped(found.note)}</p>', "video")
