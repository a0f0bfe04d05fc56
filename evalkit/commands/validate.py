"""`evalkit validate PATH ...`: checks results against the schema and their predictions."""

from __future__ import annotations

from pathlib import Path

from evalkit.errors import UserError
from evalkit.results.scores import task_files
from evalkit.results.validate import validate


def main(words: list[str]) -> int:
    """1 where a result is not valid, else 0; prints a line per problem.

    Raises:
        UserError: no path is named, or there is no result.
    """
    paths, files = task_files(words)
    if not paths:
        raise UserError("validate takes one or more paths of results, got nothing")
    code = 0
    for path in paths:
        problems = validate(Path(path), files)
        for line in problems or [f"{path}: ok"]:
            print(line)
        code = 1 if problems else code
    return code
