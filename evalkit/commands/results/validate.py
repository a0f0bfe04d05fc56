"""`evalkit validate PATH ... [signers=FILE]`: checks results by recomputing everything possible."""

from __future__ import annotations

from pathlib import Path

from evalkit.errors import UserError, on_screen
from evalkit.results import signature
from evalkit.results.run_folder import refuse_commas, runs
from evalkit.results.scores import task_files
from evalkit.results.validate import validate


def main(words: list[str]) -> int:
    """1 where a result is not valid, or not signed by one of the signers, else 0; prints a line per problem.

    Raises:
        UserError: no path is named, there is no result, or no such file of signers.
    """
    words, files = task_files(words)
    paths, signers = signature.allowed(words)
    if not paths:
        raise UserError("validate takes one or more paths of results, got nothing")
    if unknown := [path for path in paths if "=" in path and not Path(path).exists()]:
        raise UserError(f"validate takes paths of results, signers= and task=, got {unknown[0]!r}")
    refuse_commas("validate", map(Path, paths))
    code = 0
    for path in paths:
        problems = validate(Path(path), files)
        names: dict[str, None] = {}
        if signers:
            for run in runs(Path(path)):
                try:
                    names[signature.signer(run, signers)] = None
                except UserError as error:
                    problems.append(str(error))
        for line in problems or [f"{path}: ok" + (f", signed by {', '.join(names)}" if names else "")]:
            print(on_screen(line))
        code = 1 if problems else code
    return code
