"""SPICE, which is not run here: what it needs, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalkit.api import UserError


def spice(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
    """Nothing but the reason why SPICE is not computed.

    Raises:
        UserError: always.
    """
    raise UserError(
        "SPICE is not part of evalkit: it needs Java 8 and the models of Stanford CoreNLP 3.6.0, which its own program "
        "downloads; score predictions.jsonl with pycocoevalcap.spice.spice.Spice, or use CIDEr and METEOR here"
    )
