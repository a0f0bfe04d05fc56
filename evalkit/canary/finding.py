"""What the canary says of one thing that it looked at."""

from __future__ import annotations

from typing import Literal, NamedTuple

Outcome = Literal["ok", "warning", "failed", "unknown"]


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        check: what it is called.
        outcome: ok; warning: worth a look; failed: features would be wrong; unknown: it could not be told, and why.
        detail: one line: what was measured, and what to do.
    """

    check: str
    outcome: Outcome
    detail: str
