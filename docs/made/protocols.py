"""Pages of the protocols, and of frames and views with a picture."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from typing import get_args

import numpy as np

from docs.made.reference import choices, key_rows
from docs.made.text import prose, table, text
from evalkit.api import Sampling, Views
from evalkit.config import keys
from evalkit.datasets import behavior, protocols
from evalkit.errors import UserError
from evalkit.localization import segment_task, spatiotemporal
from evalkit.video import sampling


def views_page() -> str:
    """Which frames and crops each way of sampling shows, with a picture."""
    parts = [
        "# Frames and views",
        "A task defines which frames and crops of a video make a clip (`evalkit.api.Views`); the options `clip.*` "
        "override it.",
        "![The frames of a ten-second video chosen by each sampling method](views.svg)",
        "Eight frames of a ten-second video at 30 fps, computed by evalkit's own sampling code; `fps` at one frame "
        "per second, `dense` with a stride of 16.",
    ]
    doc = inspect.cleandoc(Views.__doc__ or "")
    ways = re.findall(r"^  \* `(\w+)`: (.*?)(?=^  \* |^$)", doc, re.MULTILINE | re.DOTALL)
    opening = re.search(r"With a span of .*?:", doc, re.DOTALL)
    parts += [text(" ".join(opening[0].split())) if opening else ""]
    parts += [table(("`clip.sampling=`", "frames"), [(f"`{way}`", text(" ".join(told.split()))) for way, told in ways])]
    parts += [
        "## Keys",
        table(("key", "type", "default", "meaning"), key_rows(keys.known_keys("check", "folder"), "clip")),
    ]
    parts += ["[Protocols](protocols.md) lists the views of each protocol."]
    return "\n\n".join(parts) + "\n"


def picture() -> str:
    """For each way of sampling a line of the video, and a mark at each frame that is shown."""
    rate, seconds, left, width = 30, 10, 90, 600
    times = np.arange(rate * seconds) / rate
    rows = []
    for number, way in enumerate(get_args(Sampling)):
        views = Views(way, frames=8, fps=1.0, stride=16 if way == "dense" else 1)
        y = 30 + 34 * number
        marks = "".join(
            f'<rect x="{left + width * time / seconds - 2:.1f}" y="{y - 9}" width="4" height="18" fill="#0072B2"/>'
            for time in times[sampling.frame_indices(times, float(seconds), views, 8)[0]]
        )
        rows.append(
            f'<text x="0" y="{y + 5}">{way}</text>'
            f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" stroke="#888"/>{marks}'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 10}" height="{34 * len(rows) + 20}" '
        f'font-family="sans-serif" font-size="15" fill="#666" role="img">{"".join(rows)}</svg>\n'
    )


def protocols_page(tasks: Sequence[str]) -> str:
    """What each protocol is, in the words of its module, and what it prescribes for which benchmark."""
    parts = [
        "# Protocols",
        "`data.protocol=NAME` selects the evaluation protocol of a paper. Each is described with its source and the "
        "details that the source leaves open. The tables are generated from the code.",
    ]
    doc = inspect.cleandoc(protocols.__doc__ or "").split("\n\n", 1)[1]
    parts += ["## Classification", text(doc)]
    head = ("benchmark", "frames", "step", "clips x crops", "size", "adapter", "settings", "augmentation")
    for name in get_args(protocols.Name):
        alike: dict[tuple[str, ...], list[str]] = {}  # benchmarks by what is prescribed for them
        for benchmark in dict.fromkeys((*protocols.VIDEOGLUE, *protocols.VJEPA2)):
            if row := _prescribed(name, benchmark):
                alike.setdefault(row, []).append(benchmark)
        parts += [f"### {name}", table(head, [(", ".join(benchmarks), *row) for row, benchmarks in alike.items()])]
    for title, module in (("Boxes in key frames", spatiotemporal), ("Animal behavior", behavior)):
        parts += [f"## {title}", prose(f"x\n\n{inspect.cleandoc(module.__doc__ or '')}")]
    rows = [(f"`{name}`", *_looks(views)) for name, views in spatiotemporal.PROTOCOLS.items()]
    parts += [table(("ava, ava_kinetics", *head[1:5]), rows), "## Segments in time"]
    windows = [
        (f"`{name}`", f"{length:.3g} s", f"{step:.3g} s") for name, (length, step) in segment_task.WINDOWS.items()
    ]
    parts += [text(segment_task.__doc__ or ""), table(("`data.windows=`", "length", "from one to the next"), windows)]
    parts += ["## Which task has which", table(("task", "`data.protocol=`"), [
        (f"[{name}](data/{name}.md)", ", ".join(f"`{one}`" for one in offered))
        for name in tasks if (offered := choices(keys.known_keys("check", name)))
    ])]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _prescribed(name: protocols.Name, benchmark: str) -> tuple[str, ...]:
    """A row on what a protocol prescribes for a benchmark; empty where it says nothing of it."""
    try:
        fields = protocols.prescribed(name, benchmark)
    except (UserError, KeyError):
        return ()
    settings = ", ".join(f"{key} {value}" for key, value in fields["settings"].items())
    augment = fields.get("augment")
    changed = {field.name: getattr(augment, field.name) for field in dataclasses.fields(augment)} if augment else {}
    augmented = ", ".join(
        key if value is True else f"{key} {value}" for key, value in changed.items() if value not in (None, False)
    )
    adapter = f"`{fields['adapter'] or 'probe'}`"
    return *_looks(fields["views"]), adapter, text(settings), text(augmented)


def _looks(views: Views) -> tuple[str, ...]:
    step = f"every {views.stride}." if views.sampling == "dense" else f"{views.fps:g} a second"
    step = step if views.sampling in ("dense", "fps") else views.sampling
    frames = "the encoder's" if views.frames is None else str(views.frames)
    return frames, step, f"{views.clips} x {views.crops}", "the encoder's" if views.size is None else str(views.size)
