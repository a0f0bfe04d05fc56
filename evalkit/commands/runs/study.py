"""`evalkit study NAME|FILE.yaml [key=value ...]`: runs a study's experiments and tests its claims."""

from __future__ import annotations

from evalkit.errors import UserError
from evalkit.studies import files


def main(words: list[str]) -> int:
    """1 where a cell failed, else 0, after what the study found was printed; with --help, what it asks.

    Raises:
        UserError: there is no such study, a word is wrong, or data are not there; nothing has been run then.
    """
    names = [word for word in words if "=" not in word and word not in ("--help", "-h")]
    if len(names) != 1:
        known = ", ".join(files.studies())
        raise UserError(
            f"study takes one name or file and words key=value, got {' '.join(names) or 'no name'}. Known: {known}"
        )
    study = files.read(names[0])
    from evalkit.studies import run  # torch comes with it

    given = [word for word in words if "=" in word]
    if len(names) + len(given) < len(words):
        print(run.describe(study, given))
        return 0
    return run.run(study, given)
