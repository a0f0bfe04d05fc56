"""All pages of the site in one folder, those among them that are made from the code, so that they cannot drift.

    python docs/generated.py build
    mkdocs build --strict --config-file build/mkdocs.yml

is `make docs`: the site is build/site. The README is the first page;
CONTRIBUTING.md and others at the top of the repository are pages, too.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from evalkit import cli, plugins  # noqa: E402
from evalkit.api import Sampling, Views  # noqa: E402
from evalkit.config import keys  # noqa: E402
from evalkit.config.config import typed  # noqa: E402
from evalkit.config.values import type_name  # noqa: E402
from evalkit.datasets import behavior, protocols  # noqa: E402
from evalkit.errors import UserError  # noqa: E402
from evalkit.localization import segment_task, spatiotemporal  # noqa: E402
from evalkit.studies import cards  # noqa: E402
from evalkit.video import sampling  # noqa: E402
from evalkit.weights import presets  # noqa: E402

# Files at the top of the repository that are pages, by what they are called on the site.
AT_THE_TOP = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "architecture.md": "ARCHITECTURE.md",
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
}


def main(words: Sequence[str]) -> int:
    """Writes every page of the site into FOLDER/docs, as Python's Markdown reads them, and FOLDER/mkdocs.yml."""
    folder = Path(words[0]) / "docs"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("*.py", "*.yml", "__pycache__"))
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
    """The text with links out of docs/ turned to where they lead on the site."""
    for name, file in AT_THE_TOP.items():
        markdown = markdown.replace(f"](../{file}", f"]({name}")
    return markdown


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


def pages() -> dict[str, str]:
    """Every page that is made here, by its name on the site."""
    tasks = [*plugins.names("task")]
    made = {name: _at_the_top(file) for name, file in AT_THE_TOP.items()}
    made |= {f"data/{name}.md": _data(name) for name in tasks}
    made["data/index.md"] = _all_data(tasks)
    made |= {"views.svg": _picture(), "views.md": _views(), "protocols.md": _protocols(tasks)}
    made |= {"keys.md": _keys(), "record.md": _record(), "encoder-list.md": _encoders(), "card-list.md": _cards()}
    return made


def _at_the_top(file: str) -> str:
    text = (ROOT / file).read_text(encoding="utf-8").replace("](docs/", "](")
    for name, other in AT_THE_TOP.items():
        text = text.replace(f"]({other})", f"]({name})")
    return re.sub(r"\[([^]]+)\]\(leaderboard/README\.md\)", r"`\1` in the repository", text)


def text(words: str) -> str:
    """Plain words as Markdown: what would be markup is escaped, but for what stands in backticks; URLs are links."""
    parts = re.split(r"(`[^`]*`|https?://[^\s,;)`'\"]*[\w/])", words)
    kept = {"`": str, "h": "<{}>".format}
    return "".join(
        kept[part[0]](part) if number % 2 else re.sub(r"([*_|\[\]])", r"\\\1", part).replace("<", "&lt;")
        for number, part in enumerate(parts)
    )


def table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    """A table; `|` within a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[re.sub(r"(?<!\\)[|]", r"\\|", cell) for cell in row] for row in lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def prose(doc: str | None) -> str:
    """A docstring without its first line and its sections of arguments, as paragraphs of Markdown."""
    kept, _, _ = re.sub(r"\n(Args|Attributes|Raises|Returns):\n", "\0", inspect.cleandoc(doc or "")).partition("\0")
    return text(kept.partition("\n")[2].strip())


def _data(name: str) -> str:
    module, make = plugins.module_and_factory("task", name)
    data, known = keys.stated_data(name), keys.known_keys("check", name)
    title = inspect.cleandoc(module.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    root = known["data.root"].default
    sizes = ", ".join(f"{split} {size}" for split, size in data.counted())
    needs = ", ".join(f"`{extra}`" + (f" with `{asked}`" if asked else "") for extra, asked in data.needs.items())
    adapter = keys.default_adapter(name)
    facts = [
        ("source", f"<{data.source}>" if data.source.startswith("http") else data.source),
        ("license", data.license),
        ("examples", sizes),
        ("size on disk", data.disk),
        ("what has vanished", data.vanished),
        ("extras", needs or "none"),
        ("adapter", f"`{adapter}`: {text(plugins.summary('adapter', adapter))}"),
        ("protocols", ", ".join(f"`{one}`" for one in _choices(known)) or "one"),
    ]
    parts = [
        f"# {name}",
        text(title),
        text(plugins.summary("task", name)),
        table(("the data", "as stated"), _stated(facts)),
    ]
    parts += [prose(make.__doc__), "## On disk", f"Below `data.root=`, by default `{root}`:"]
    parts += ["```\n" + tree(data.files) + "```", table(("file", "what it holds"), _files(data.files)), "## Try it"]
    words = f"task={name} data.root={root}"
    parts += [
        f"    evalkit doctor {words}    # what is missing, here and for this task\n"
        f"    evalkit check {words}     # are all videos there, and do they decode?\n"
        f"    evalkit run task={name} ckpt=demo mini=true    # on generated films, without any of it"
    ]
    parts += ["## Its keys", table(("key", "type", "default", "meaning"), _rows(known, "data"))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _stated(facts: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for what, told in facts:
        yield what, told or "not stated"


def _files(files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, content in files.items():
        yield ", ".join(f"`{one}`" for one in name.split(", ")), text(content)


def _choices(known: Mapping[str, keys.Key]) -> tuple[str, ...]:
    return get_args(known["data.protocol"].type) if "data.protocol" in known else ()


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


def _all_data(tasks: Sequence[str]) -> str:
    rows = []
    for name in tasks:
        data = keys.stated_data(name)
        sizes = ", ".join(f"{split} {size}" for split, size in data.counted())
        rows.append((f"[{name}]({name}.md)", text(plugins.summary("task", name)), sizes, data.license))
    return (
        "# Data\n\nA page per benchmark: where its data are published and under which license, which files evalkit "
        "reads and what they hold, how many examples are expected, and what is known to have vanished. "
        "`evalkit list tasks NAME` prints the same, `evalkit doctor task=NAME data.root=FOLDER` says what is missing, "
        "and `evalkit check` decodes every video. What its makers do not say is *not stated*. evalkit downloads no data: "
        "licenses are yours to accept.\n\n" + table(("task", "what it asks", "examples", "license"), rows)
    )


def _rows(known: Mapping[str, keys.Key], *sections: str) -> Iterator[tuple[str, str, str, str]]:
    for name, key in known.items():
        if key.section in sections:
            default = "as the task" if key.section == "clip" else _default(key.default)
            yield f"`{name}`", text(type_name(key.type).removeprefix("one of ")), text(default), text(key.meaning)


def _default(value: object) -> str:
    return "required" if value is keys.REQUIRED else typed(value)


def _keys() -> str:
    head = ("key", "type", "default", "meaning")
    known = keys.known_keys("run", "folder")
    parts = ["# All keys", "What `evalkit --help` prints:", "```\n" + cli.USAGE.rstrip() + "\n```"]
    parts += [
        "`evalkit run task=NAME --help` prints the keys of one task and its adapter. Those of `data.*` stand on "
        "[each task's page](data/index.md), all others here.",
        "## Without a section",
    ]
    parts += [table(head, _rows(known, "")), "## encoder.*", table(head, _rows(known, "encoder"))]
    parts += ["## clip.*: in place of the task's own", table(head, _rows(known, "clip"))]
    parts += ["## trainer.*", table(head, _rows(known, "trainer")), "## data.* of every task"]
    parts += [table(head, ([f"`data.{key.parameter}`", text(type_name(key.type)), "null", text(key.meaning)]
                           for key in (keys.EXPECT, keys.VIDEOS)))]  # fmt: skip
    for name in plugins.names("adapter"):
        parts += [f"## adapter={name}", text(plugins.summary("adapter", name))]
        if rows := [*_rows(keys.adapter_keys(name), "adapter")]:
            parts.append(table(head, rows))
    return "\n\n".join(parts) + "\n"


def _record() -> str:
    schema = json.loads((ROOT / "evalkit/results/result.schema.json").read_text(encoding="utf-8"))
    parts = ["# Fields of a result", f"`result.json`, from its schema, which is shipped as "
             f"`evalkit/results/result.schema.json`. {schema['description']}"]  # fmt: skip
    parts += ["What the numbers mean stands on [Results](results.md). A field in *italics* need not be there."]
    required = schema["required"]
    rows = [(_field(name, required), _kind(value, schema), _meaning(value, schema))
            for name, value in schema["properties"].items()]  # fmt: skip
    parts.append(table(("field", "type", "meaning"), rows))
    for name, value in schema["properties"].items():
        if inner := [*_fields(value, schema)]:
            parts += [f"## {name}", table(("field", "type", "meaning"), inner)]
    return "\n\n".join(parts) + "\n"


def _field(name: str, required: Sequence[str]) -> str:
    return f"`{name}`" if name in required else f"*`{name}`*"


def _resolved(value: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """A part of the schema with what its reference names; of several forms the one that is no null."""
    while "$ref" in value:
        value = {**schema["$defs"][value["$ref"].rpartition("/")[2]], **{k: v for k, v in value.items() if k != "$ref"}}
    for form in value.get("anyOf", ()):
        if form.get("type") != "null":
            return {**_resolved(form, schema), **{k: v for k, v in value.items() if k != "anyOf"}, "nullable": True}
    return dict(value)


def _kind(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    value = _resolved(value, schema)
    kind = value.get("type", "")
    if "const" in value or "enum" in value:
        words = ", ".join(map(str, value.get("enum", [value.get("const")])))
    elif kind == "array" and isinstance(value.get("items"), dict):
        words = f"list of {_kind(value['items'], schema)}"
    else:
        words = " or ".join(one for one in ([kind] if isinstance(kind, str) else kind) if one != "null") or "any"
    return words + (" or null" if value.get("nullable") or "null" in kind else "")


def _meaning(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    return text(_resolved(value, schema).get("description", ""))


def _fields(value: Mapping[str, Any], schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """The fields of an object, or of a list's objects, at any depth, each by its path."""
    value = _resolved(value, schema)
    if value.get("type") == "array":
        yield from _fields(value.get("items", {}), schema, path)
        return
    for name, inner in value.get("properties", {}).items():
        yield _field(f"{path}{name}", [f"{path}{one}" for one in value.get("required", ())]), _kind(inner, schema), _meaning(inner, schema)  # fmt: skip  # noqa: E501
        yield from _fields(inner, schema, f"{path}{name}.")


def _encoders() -> str:
    head = ("`ckpt=`", "family", "parameters", "clip", "text", "license", "weights", "trained on")
    rows = []
    for name, card in presets.cards().items():
        link = f"[{card.hub}](https://huggingface.co/{card.hub})" if "/" in card.hub else card.hub
        place = link or (f"<{card.url}>" if card.url else "not published")
        trained = ", ".join(f"{data} ({what})" for data, what in card.trained_on.items())
        source = f"[{name}]({card.source})" if card.source.startswith("http") else name
        count = f"{card.parameters / 1e6:.1f} M"
        words = "yes" if card.text else ""
        rows.append((source, text(card.family), count, card.clip, words, card.license, place, text(trained)))
    return (
        "# List of encoders\n\nThe names that `ckpt=` knows, as `evalkit list encoders` prints them; "
        "`ckpt=random:NAME` has random weights. [Encoders](encoders.md) says what else `ckpt=` takes. Where nothing "
        "stands under *trained on*, it is not published.\n\n" + table(head, rows)
    )


def _cards() -> str:
    rows = []
    for name in cards.cards():
        card = cards.read(name)
        expected = ", ".join(f"{metric} {value:g}" for metric, value in card.expected.items())
        rows.append(
            (f"`{name}`", f"`{' '.join(f'{k}={v}' for k, v in card.run.items())}`", expected, text(card.printed))
        )
    return (
        "# List of cards\n\nPublic checkpoints, the line that scores each, and the number that is published for it: "
        "`evalkit verify NAME data.root=FOLDER` runs the line and says whether the number comes out "
        "([Reference cards](verify.md)).\n\n" + table(("card", "line", "published", "source"), rows)
    )


def _views() -> str:
    parts = [
        "# Frames and views",
        "A task says which frames and crops of a video make a clip (`evalkit.api.Views`); `clip.*` takes others in their "
        "place.",
        "![Which frames of a video of ten seconds each way of sampling shows](views.svg)",
        "Eight frames of a video of ten seconds at 30 frames a second, computed by evalkit's own sampling; `fps` at one "
        "a second, `dense` with a stride of 16.",
    ]
    doc = inspect.cleandoc(Views.__doc__ or "")
    ways = re.findall(r"^  \* `(\w+)`: (.*?)(?=^  \* |^$)", doc, re.MULTILINE | re.DOTALL)
    opening = re.search(r"With a span of .*?:", doc, re.DOTALL)
    parts += [text(" ".join(opening[0].split())) if opening else ""]
    parts += [table(("`clip.sampling=`", "frames"), [(f"`{way}`", text(" ".join(told.split()))) for way, told in ways])]
    parts += [
        "## Keys",
        table(("key", "type", "default", "meaning"), _rows(keys.known_keys("check", "folder"), "clip")),
    ]
    parts += ["The views of each protocol stand on [Protocols](protocols.md)."]
    return "\n\n".join(parts) + "\n"


def _picture() -> str:
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


def _protocols(tasks: Sequence[str]) -> str:
    parts = [
        "# Protocols",
        "How a paper does it, by name: `data.protocol=NAME`. The sources stand with each, and what they leave open. The "
        "tables are computed from what a run takes.",
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
        (f"[{name}](data/{name}.md)", ", ".join(f"`{one}`" for one in choices))
        for name in tasks if (choices := _choices(keys.known_keys("check", name)))
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
