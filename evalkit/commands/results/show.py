"""`evalkit show RUN [sample=ID out=FILE.html]`: a run looked at, and single samples of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evalkit.errors import UserError, suggest
from evalkit.results.run_folder import below
from evalkit.results.scores import task_files

OWN = ("sample", "out", "encode")


def main(words: Sequence[str]) -> int:
    """0, after the run or the samples were printed, or pages of the samples were written.

    Raises:
        UserError: no run is named, a word is wrong, or there is no such sample.
    """
    from evalkit.show import samples, text
    from evalkit.show.opened import open_run

    words, files = task_files(words)
    runs = [word for word in words if "=" not in word or Path(word).exists()]
    given: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if word in runs:
            continue
        if key in given:
            raise UserError(f"{key} is given twice: {key}={given[key]} and {word}")
        given[key] = value
    if len(runs) != 1:
        there = "" if runs else below(Path("results"), "results")
        raise UserError(f"show takes the folder of one run, got {' '.join(runs) or 'nothing'}{there}")
    own = {key: given.pop(key) for key in OWN if key in given}
    for key, value in own.items():
        if not value or (key == "encode" and value not in ("true", "false")):
            raise UserError(f"{key}={value}: wanted {'true or false' if key == 'encode' else 'a value'}")
    if alone := [key for key in given if "." not in key and suggest(key, OWN)]:
        raise UserError(f"unknown key {alone[0]!r}.{suggest(alone[0], OWN)}")
    if "sample" not in own and {"out", "encode"} & own.keys():
        raise UserError(
            f"{min({'out', 'encode'} & own.keys())}= is of samples: name them, sample=ID or sample=first:20"
        )
    pages = [key for key in given if not key.startswith("data.")] + [key for key in own if key == "encode"]
    if pages and "out" not in own:
        raise UserError(f"{pages[0]}= is of what a page shows: name it, out=FILE.html")
    more = [f"{key}={value}" for key, value in given.items()]
    opened = open_run(Path(runs[0]), more, files)
    if "sample" not in own:
        print(text.overview(opened))
        return 0
    chosen = samples.samples(opened, own["sample"])
    if "out" not in own:
        print("\n\n".join(text.sample(opened, row) for row in chosen))
        return 0
    from evalkit.show.inside import Inside  # these import torch
    from evalkit.show.write import write_pages

    with Inside(opened, chosen, more, files, own.get("encode") == "true") as inside:
        print(write_pages(opened, chosen, Path(own["out"]).expanduser(), inside))
    return 0
