"""A page on the data of each task, from what the task states."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence

from docs.made.reference import choices, key_rows
from docs.made.text import prose, table, text, tree
from evalkit import plugins
from evalkit.config import keys


def data_page(name: str) -> str:
    """The page of a task: what its data are, how they lie on disk, and how to see that they are all there."""
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
        ("no longer available", data.vanished),
        ("extras", needs or "none"),
        ("adapter", f"`{adapter}`: {text(plugins.summary('adapter', adapter))}"),
        ("protocols", ", ".join(f"`{one}`" for one in choices(known)) or "one"),
    ]
    parts = [
        f"# {name}",
        text(title),
        text(plugins.summary("task", name)),
        table(("property", "value"), _stated(facts)),
    ]
    parts += [prose(make.__doc__), "## On disk", f"Below `data.root=`, by default `{root}`:"]
    parts += ["```\n" + tree(data.files) + "```", table(("file", "contents"), _files(data.files)), "## Try it"]
    words = f"task={name} data.root={root}"
    parts += [
        f"    evalkit doctor {words}    # what is missing on this machine and in the data\n"
        f"    evalkit check {words}     # are all videos there, and do they decode? out=missing.txt lists the others\n"
        f"    evalkit run task={name} ckpt=demo mini=true    # on generated films, without data"
    ]
    parts += ["## Options", table(("key", "type", "default", "meaning"), key_rows(known, "data"))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _stated(facts: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for what, told in facts:
        yield what, told or "not stated"


def _files(files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, content in files.items():
        yield ", ".join(f"`{one}`" for one in name.split(", ")), text(content)


def data_index(tasks: Sequence[str]) -> str:
    """The list of all tasks with their data."""
    rows = []
    for name in tasks:
        data = keys.stated_data(name)
        sizes = ", ".join(f"{split} {size}" for split, size in data.counted())
        rows.append((f"[{name}]({name}.md)", text(plugins.summary("task", name)), sizes, data.license))
    return (
        "# Data\n\nEach benchmark has a page: where its data are published, under which license, which files evalkit "
        "reads and what they contain, how many examples are expected, and what is no longer available. "
        "`evalkit list tasks NAME` prints the same, `evalkit doctor task=NAME data.root=FOLDER` lists missing files, "
        "and `evalkit check` decodes every video. *Not stated* means that the authors do not say. evalkit downloads no "
        "data, because you have to accept the licenses yourself.\n\n"
        + table(("task", "description", "examples", "license"), rows)
    )
