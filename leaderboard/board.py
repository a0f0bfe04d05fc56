"""`evalkit leaderboard`: writes all results side by side as markdown, csv or html; equal results give equal bytes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from evalkit.errors import UserError, suggest_key
from evalkit.results.scores import task_files
from evalkit.results.signature import allowed
from evalkit.runtime import atomic
from evalkit.runtime.filesystem import check_writable

from .csv import render_csv
from .markdown import render_markdown
from .other_tools import read_scores
from .page.render import render_page
from .runs import collect

logger = logging.getLogger("evalkit")

ENDINGS = (".md", ".csv", ".html")


def board(overrides: Sequence[str]) -> int:
    """Writes the leaderboard of all runs under a folder.

    Args:
        overrides: results=, a run or a folder with runs in it; out=, a file that ends in .md, .csv or .html, by default
            README.md in that folder; others=, a file or folder that mteb or lm-eval wrote, for a section of its own;
            videos=, a folder with the samples' videos, for pictures in a page; task=, the file of a task of your own,
            by which its runs are scored again; may be given several times; signers=, OpenSSH's file of allowed signers,
            to take only runs that one of them signed.

    Returns:
        The exit code: 1 if a run does not validate. Such runs are named and left out.

    Raises:
        UserError: an argument is wrong, there is no run, or `out` cannot be written.
    """
    options = {"results": "results", "out": "", "others": "", "videos": ""}
    overrides, files = task_files(overrides)
    overrides, signers = allowed(overrides)
    for override in overrides:
        key, equals, value = override.partition("=")
        if key not in options or not value:
            known = ", ".join(f"{name}=" for name in (*options, "task", "signers"))
            ending = value.lower() if key in ("format", "to", "as") and f".{value.lower()}" in ENDINGS else ""
            near = f" Did you mean 'out=board.{ending}'?" if ending else suggest_key(override, options, "results")
            raise UserError(f"leaderboard takes {known}, got {override!r}.{near}")
        options[key] = value
    results = Path(options["results"])
    out = Path(options["out"]) if options["out"] else results / "README.md"
    if out.suffix not in ENDINGS:
        raise UserError(f"out={out}: wanted a file that ends in .md, .csv or .html, such as out=board.md")
    videos = Path(options["videos"]) if options["videos"] else None
    if videos and not (out.suffix == ".html" and videos.is_dir()):
        why = "there is no such folder" if out.suffix == ".html" else "only a page shows them; give out=FILE.html"
        raise UserError(f"videos={videos}: {why}")
    others = read_scores(Path(options["others"])) if options["others"] else ()
    if others and out.suffix == ".csv":
        raise UserError(f"others={options['others']}: a csv holds our own results alone; give out=FILE.md")
    if options["out"]:
        check_writable(out.absolute().parent, f"out={out}")  # now rather than after the runs were validated
    runs, refused = collect(results, files, signers)
    if out.suffix == ".html":
        text = render_page(runs, refused, others, videos)
    elif out.suffix == ".csv":
        text = render_csv(runs)
    else:
        text = render_markdown(runs, refused, others)
    try:
        atomic.write(out, text.encode("utf-8", "backslashreplace"))  # a name may hold what no encoding has
    except OSError as error:
        raise UserError(f"out={out}: cannot write there: {error.strerror}") from error
    for line in refused:
        logger.warning(f"refused: {line}")
    print(out)
    return 1 if refused else 0
