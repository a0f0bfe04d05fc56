"""What a user can mend: its exception, one-line texts, and the nearest known word."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class UserError(Exception):
    """Something the user can mend; shown as one line, exit code 2, no traceback."""


def one_line(error: BaseException, most: int = 300) -> str:
    """What went wrong, in one line: the error's kind and its words, of which at most so many characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:most]}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant; None where no one is near."""
    from difflib import get_close_matches

    known = list(known)
    begun = [one for one in known if len(word) > 2 and one.startswith(word)]  # diff= for difference=
    # At difflib's own 0.6 `gpu` would be taken for `cpu`.
    return next(iter(get_close_matches(word, known, n=1, cutoff=0.7)), begun[0] if len(begun) == 1 else None)


def suggest(word: str, known: Iterable[str]) -> str:
    """A sentence to append to an error, " Did you mean 'x'?", or nothing where no known word is near."""
    near = nearest(word, known)
    return f" Did you mean {near!r}?" if near else ""
