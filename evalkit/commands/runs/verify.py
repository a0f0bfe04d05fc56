"""`evalkit verify NAME [data.root=FOLDER ...]`: reproduces a public checkpoint's published score."""

from __future__ import annotations

import shlex

from evalkit.datasets.training_data import in_words
from evalkit.errors import UserError, counted
from evalkit.results.table import columns
from evalkit.studies import cards

LEGEND = f"""
weights: of the encoder, in float32. minutes: of its arithmetic alone, at {cards.TFLOPS} TFLOP/s; decoding comes on top.
quoted: the number was read in another text than its source. `evalkit verify NAME --help` shows a card's line."""


def main(words: list[str]) -> int:
    """0 where the published number is reproduced, 1 where it is not or cannot be told, after a sentence says so.

    `list` prints all cards; NAME --help what one needs.

    Raises:
        UserError: there is no such card, a word is wrong, or what the line needs is missing.
    """
    names = [word for word in words if "=" not in word and word not in ("--help", "-h")]
    if len(names) != 1:
        raise UserError(f"verify takes the name of one card, or list; got {' '.join(names) or 'no name'}")
    given = [word for word in words if "=" in word]
    if names == ["list"]:
        if given:
            raise UserError(f"verify list takes no words, got {given[0]!r}")
        print(columns(cards.table(cards.every())))
        print(LEGEND)
        return 0
    card = cards.read(names[0])
    if len(names) + len(given) < len(words):
        print(describe(card))
        return 0
    from evalkit.studies import verify  # torch comes with it

    return verify.run(card, given)


def describe(card: cards.Card) -> str:
    """A card in words."""
    words = [f"{key}={value}" for key, value in card.run.items()]
    line = shlex.join(["evalkit", "run", *words, "data.root=FOLDER", *card.file_words])
    numbers = ", ".join(f"{metric} {value:g}" for metric, value in card.expected.items())
    tolerance = "the interval of the score" if card.tolerance is None else f"{card.tolerance:g} points"
    preset = card.preset
    lines = [card.title, "", line, "", f"published  {numbers} ({card.row}; {card.printed})", f"tolerance  {tolerance}"]
    lines.append(
        f"weights    {card.gigabytes:.2g} GB, {preset.parameters:,} parameters, {preset.license}: {card.weights}"
    )
    if card.trained_on:
        lines.append(f"trained on {in_words(card.trained_on)}")
    lines += [f"file       {key}= {place}" for key, places in card.files.items() for place in places]
    if card.minutes is not None:
        lines.append(f"computes   {counted(card.clips, 'clip')} of {card.gflops:,.0f} GFLOP")
    return "\n".join(lines)
