"""The result of one check of an encoder."""

from __future__ import annotations

from typing import Literal, NamedTuple

Outcome = Literal["ok", "warning", "failed", "unknown"]


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        check: name of the check.
        outcome: ok; warning: worth a look; failed: features would be wrong; unknown: not measured, and why.
        detail: one line: what was measured, and what to do.
    """

    check: str
    outcome: Outcome
    detail: str
