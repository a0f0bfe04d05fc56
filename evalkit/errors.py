"""Errors that a user can mend: their exception, texts in one line, and the nearest known word."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable

# Names of evalkit.api that plug-ins may still have in their former form.
_RENAMED = {
    "Encoded": "EncoderOutput",
    "Kept": "FeatureSpec",
    "choose": "select",
    "kept": "feature_spec",
    "licence": "license",
    "normalise": "normalize",
    "provide": "prepare_videos",
    "settle": "finalize",
}


MOST_LISTED = 20  # words that a message names, where none is near
MOST_NAMED = 4  # that all begin as the word that was typed

DISTRIBUTION = "video-evalkit"  # what pip calls it: PyPI's `evalkit` is another project


def counted(number: int, noun: str) -> str:
    """A number of things: `1 clip`, `1,234 clips`, `2 classes`."""
    plural = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{plural}"


def install(extra: str) -> str:
    """The command that installs one of evalkit's optional parts, a key of pyproject's optional-dependencies."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


class UserError(Exception):
    """Something the user can mend; shown as one line, exit code 2, no traceback."""


class CanaryError(UserError):
    """The canary's checks of an encoder that failed; the argument names them."""

    def __str__(self) -> str:
        fails = "the encoder fails on (" in self.args[0]  # on clips of this shape, with or without a canary
        return f"the canary stops this run: {self.args[0]}" + ("" if fails else " (canary=false continues anyway)")


def names_file(text: str) -> bool:
    """Whether a text can be the name of a file: bytes that are no UTF-8 are, as Python has them; NUL is not."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def check_word(word: str) -> None:
    """Check that a word of the command can name a file.

    Raises:
        UserError: it cannot.
    """
    if not names_file(word):
        raise UserError(f"{word[:60]!r} holds a character that no file's name has")
    value = word.partition("=")[2] or word
    if value.startswith("~") and os.path.expanduser(value) == value:
        raise UserError(f"{word}: there is no user {value.split('/')[0][1:]!r}, whose home folder it begins with")


def in_line(text: object) -> str:
    """The text of an error, or of anything, in one line: each run of white space is a blank."""
    return " ".join(str(text).split())


def printable(text: str) -> str:
    """The text with what a terminal or a file could not take as escapes: control characters, lone surrogates."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def on_screen(text: object, most: int = 1_500) -> str:
    """A message in one printable line that a screen holds; of a longer one the beginning, and the end with advice."""
    line = printable(in_line(text))
    return line if len(line) <= most else f"{line[: most - 400]} [...] {line[-380:]}"


def one_line(error: BaseException, most: int = 300) -> str:
    """An error as one line: its type and its text, of which at most so many characters; and a name's new form."""
    return f"{type(error).__name__}: {in_line(error)[:most]}{_renamed(error)}"


def reason_of(error: UserError | OSError | MemoryError) -> str:
    """What the user's words or the machine did not allow, and what to do about it, in one line."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):  # of a file that is larger than the memory, such as predictions from elsewhere
        return "not enough memory: fewer workers=, a smaller batch= or smaller files need less"
    where = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        of = f" for{where}" if where else ""
        return f"no space left{of}: free some, or point out= or EVALKIT_CACHE elsewhere"
    return f"cannot read or write{where}: {error.strerror or in_line(error)}"


def _renamed(error: BaseException) -> str:
    """A sentence, " It is called 'license' now.", where the error is that a name is not known by its former form."""
    missing = r"unexpected keyword argument '(\w+)'|has no attribute '(\w+)'|cannot import name '(\w+)'"
    former = re.search(missing, str(error)) if isinstance(error, TypeError | AttributeError | ImportError) else None
    name = _RENAMED.get(former[former.lastindex or 0]) if former else None
    return f" It is called {name!r} now." if name else ""


def letters(word: str) -> str:
    """The letters and digits of a word, in lower case: `Kinetics-400` and `kinetics400` have the same."""
    return "".join(letter for letter in word.casefold() if letter.isalnum())


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant; None where no one is near."""
    from difflib import get_close_matches

    known = list(known)
    spelled = next((candidate for candidate in known if letters(candidate) == letters(word) != ""), None)
    lower = {candidate.casefold(): candidate for candidate in reversed(known)}
    # At difflib's own 0.6 `gpu` would be taken for `cpu`.
    close = get_close_matches(word.casefold(), lower, n=1, cutoff=0.7)
    begun = _begun(word, known)  # diff= for difference=
    return spelled or (begun[0] if begun else None) or (lower[close[0]] if close else None)


def suggest(word: str, known: Iterable[str]) -> str:
    """A sentence to append to an error, " Did you mean 'x'?", or nothing where no known word is near.

    Where several begin with the word, as kinetics400, kinetics600 and kinetics700 with `kinetics`, it names them.
    """
    known = list(known)
    near, begun = nearest(word, known), _begun(word, known)
    if 1 < len(begun) <= MOST_NAMED and near in begun and letters(near) != letters(word):
        return f" Did you mean one of {', '.join(map(repr, begun))}?"
    return f" Did you mean {near!r}?" if near else ""


def among(word: str, known: Iterable[str], every: str) -> str:
    """What to append where a word is none of those known: the nearest; else all, or, of many, what shows them.

    Args:
        word: as typed.
        known: what it may be.
        every: how all are shown, such as "`evalkit list tasks` shows all".
    """
    known = list(known)
    near = suggest(word, known)
    if near or len(known) > MOST_LISTED:
        return f"{near} {every}"
    return f" Known: {', '.join(known) or 'none'}"


def _begun(word: str, known: Iterable[str]) -> list[str]:
    """The known words that begin with this one, the shortest first."""
    word = letters(word)
    begun = {candidate for candidate in known if len(word) > 2 and letters(candidate).startswith(word)}
    return sorted(begun, key=lambda candidate: (len(candidate), candidate))


def suggest_key(word: str, keys: Iterable[str], place: str) -> str:
    """The same for a word of a command with few keys: the key as it is typed, or that of a place that was named alone.

    Args:
        word: as typed, `result=x` or a path alone.
        keys: that the command has.
        place: the key that takes a path.
    """
    key, equals, value = word.lstrip("-").partition("=")
    near = nearest(key, keys)
    if not equals:
        return f" Did you mean '{place}={word}'?"
    return f" Did you mean '{near}={value}'?" if near and (value or near != key) else ""
