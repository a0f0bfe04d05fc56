"""One sample as a self-contained html page: what the terminal shows, and the clip as the encoder saw it.

The page has no scripts, and forbids all: texts of a result from elsewhere are shown, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from evalkit.errors import UserError, counted, in_line
from evalkit.results.rows import Row
from evalkit.show.clip import Seen, player
from evalkit.show.drawing import HeatMaps, escaped, heat_maps, legend, png, scatter
from evalkit.show.inside import Inside
from evalkit.show.opened import Opened
from evalkit.show.sample import Cell, Part, nearest_videos, own_video, parts, verdict

T = TypeVar("T")

BEGIN = "<!doctype html>\n<!-- made by evalkit show -->\n"
POLICY = "default-src 'none'; img-src data:; media-src 'self' file: data:; style-src 'unsafe-inline'"
SMALL = 112  # pixels of a frame, below which each is shown as a square


def render_page(opened: Opened, row: Row, place: Path, inside: Inside, links: str = "") -> str:
    """The page of a sample.

    Args:
        opened: the run.
        row: of the sample.
        place: where the page will lie, from where it finds the video.
        inside: where the head looks, and the map of features.
        links: html that leads to other samples.
    """
    how = verdict(opened, row)
    kind = how if how in ("right", "wrong", "failed") else "other"
    body = [f'<h1>{escaped(row.id)} <span class="{kind}">{escaped(how)}</span></h1>', *map(_part, parts(opened, row))]
    body += [f'<p class="soft">{escaped(remark)}</p>' for remark in opened.remarks]
    body += [
        _nearest(opened, row, inside),
        _clip(opened, row, inside),
        _video(opened, row, place),
        _map(opened, row, inside),
    ]
    return document(f"{row.id}, {opened.record['encoder']['name']}", links + "\n".join(body))


def document(title: str, body: str) -> str:
    """A page with this title and html."""
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return (
        f'{BEGIN}<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{escaped(title)}</title>'
        f"<style>\n{css}</style></head><body>\n{body}\n</body></html>\n"
    )


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


def _nearest(opened: Opened, row: Row, inside: Inside) -> str:
    """The middle frames of the videos that are nearest to a query."""
    if opened.kind != "retrieval" or not opened.examples:
        return ""
    by_video = {own_video(example.target): example.id for example in opened.examples.values()}
    own = own_video(row.target)
    frames = []
    for place, name in enumerate(nearest_videos(row), 1):
        found = by_video.get(name)
        clip, _ = _told(partial(inside.clip, opened.rows[opened.place[found]])) if found else (None, "")
        if clip is not None:
            pixels = clip.clips[0].pixels[0].permute(0, 2, 3, 1).numpy()
            right = " right" if name == own else ""
            frames.append(
                f'<div class="frame"><div class="look"><img src="{png(pixels[len(pixels) // 2])}" alt=""></div>'
                f"<small>{place} {escaped(name)}{right}</small></div>"
            )
    strip = f'<div class="frames near" style="--frame: 110px">{"".join(frames)}</div>'
    return _section("The nearest videos, a frame of each", strip, "near") if frames else ""


# --- the clip and its video ------------------------------------------------------------------------------------------


def _clip(opened: Opened, row: Row, inside: Inside) -> str:
    title = "The clip as the encoder saw it"
    looked, why = _told(lambda: inside.attention(row))
    clip, reason = _told(lambda: inside.clip(row))
    if clip is None:
        return _section(title, f"<p>Its frames cannot be shown: {reason}</p>", "seen")
    views = clip.views
    assert views.frames  # resolve_views() filled it in
    said = [
        f"{counted(views.frames, 'frame')} of {views.size} x {views.size} pixels, sampling {views.sampling}, "
        f"resize {views.resize}"
        + (f", share {views.share:g}" if views.share != 1 else "")
        + (
            f", {counted(views.clips, 'clip')} x {counted(views.crops, 'crop')}"
            if views.clips * views.crops > 1
            else ""
        )
        + f"; before they are normalized. Read by {clip.clips[0].decoder}."
    ]
    if clip.windows > len(clip.clips):
        said.append(f"The first {len(clip.clips)} of {counted(clip.windows, 'window')}.")
    heat = None if looked is None or clip.windows else heat_maps(looked[0])
    if heat is not None:
        looks = (
            '<input type="checkbox" id="heat" checked> <label for="heat">Attention of the head: orange above an even '
        )
        looks += f"share, up to {heat.most:.2f} times that; in percent what each time step gets</label>"
        if looked and not looked[1]:
            looks += "<p>This head answers otherwise than the run's did, so it is another one.</p>"
    else:
        why = why or "the tokens lie on no square grid of the frame"
        looks = f'<p class="soft">Attention is not shown: {why}.</p>'
    figures = "".join(_figures(clip, heat))
    return _section(title, f'<p class="soft">{escaped(" ".join(said))}</p>{looks}{figures}', "seen")


def _told(make: Callable[[], T]) -> tuple[T | None, str]:
    """What is made; else None and why not, as html."""
    try:
        return make(), ""
    except UserError as error:
        return None, escaped(in_line(error))


def _figures(clip: Seen, heat: HeatMaps | None) -> Iterator[str]:
    """Each view's frames with their times, and what the head looks at laid over them."""
    size, count = clip.views.size or 0, 0
    for number, decoded in enumerate(clip.clips, 1):
        for view, pixels in enumerate(decoded.pixels.permute(0, 1, 3, 4, 2).numpy()):
            temporal, crop = divmod(view, clip.views.crops)
            times = decoded.times[temporal]
            names = [f"window {number}"] if clip.windows else []
            names += [f"clip {temporal + 1} of {clip.views.clips}"] if clip.views.clips > 1 else []
            names += [f"crop {crop + 1} of {clip.views.crops}"] if clip.views.crops > 1 else []
            frames = []
            for place, (frame, time) in enumerate(zip(pixels, times, strict=True)):
                over = share = ""
                if heat is not None:
                    step = place * len(heat.shares[count]) // len(pixels)
                    over = f'<img class="heat" src="{heat.pictures[count][step]}" alt="">'
                    share = f'<span class="share">{heat.shares[count][step]:.0%}</span>'
                frames.append(
                    f'<div class="frame"><div class="look"><img src="{png(frame)}" alt="frame at {time:.2f} s">{over}'
                    f"</div><small><span>{time:.2f} s</span>{share}</small></div>"
                )
            caption = f"<figcaption>{', '.join(names)}</figcaption>" if names else ""
            kind = "frames small" if size < SMALL else "frames"
            style = f"--frame: {min(max(size, 80), 150)}px"
            yield f'<figure>{caption}<div class="{kind}" style="{style}">{"".join(frames)}</div></figure>'
            count += 1


def _video(opened: Opened, row: Row, place: Path) -> str:
    example = opened.examples.get(row.id)
    if example is None:
        return _section("The video", f"<p>{escaped(row.video)}: the task's files are not here.</p>", "video")
    found, why = _told(lambda: player(example, place))
    if found is None:
        return _section("The video", f"<p>{escaped(row.video)}: {why}</p>", "video")
    element = f'<video controls preload="metadata" src="{escaped(found.source)}"></video>' if found.source else ""
    return _section("The video", f'{element}<p class="soft">{escaped(found.note)}</p>', "video")


# --- the map of features ---------------------------------------------------------------------------------------------


def _map(opened: Opened, row: Row, inside: Inside) -> str:
    title = "Features of the test samples"
    found, why = _told(inside.feature_map)
    if found is None:
        return _section(title, f"<p>They cannot be shown: {why}</p>", "map")
    first, second = found.shares
    note = f"{len(found.ids):,} of {counted(found.asked, 'sample')}, what the head reads averaged to one vector each; "
    note += f"principal components 1 and 2, {first:.0%} and {second:.0%} of the variance."
    note += " Hollow: wrong or failed." if opened.kind in ("class", "question", "retrieval") or opened.whole else ""
    if row.id not in found.ids:
        note += " This sample has no stored features."
    return _section(
        title, f'{legend(found)}<div class="wide">{scatter(opened, found, row)}</div><p class="soft">{note}</p>', "map"
    )
