"""`evalkit verify NAME`: runs a card's line, and says whether its published number comes out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.config.config import Config
from evalkit.config.keys import known_keys
from evalkit.config.parse import resolve
from evalkit.datasets import training_data
from evalkit.errors import UserError, counted, suggest
from evalkit.launch import processes
from evalkit.pipeline.task_data import data_root
from evalkit.results import run_folder
from evalkit.runtime import ranks
from evalkit.studies.cards import Card
from evalkit.weights import huggingface

WIDEST = 8.0  # points from the lower to the upper end of an interval, from which on nothing is confirmed
# On a miniature, enough to see that the line runs; V-JEPA takes any clip, and reads thousands of tokens of its own.
MINI_FRAMES, MINI_VJEPA = {"clip.frames": "8"}, {"clip.size": "112"}
SAME_WEIGHTS = 0.01  # share by which the parameters of a checkpoint may differ from the card's
# Words of the user's own beside a card's line: what is measured stays the same.
_OF_THE_LINE = ("task", "adapter", "adapter.from", "lm", "lm.precision", "config", "suite")
_SECTIONS = ("data", "clip", "adapter", "trainer")
_OF_DATA = ("data.root", "data.videos", "data.expect")


def run(card: Card, words: Sequence[str]) -> int:
    """Runs the card's line and prints the verdict; 0 where the number is reproduced, or the miniature ran, else 1.

    Args:
        card: what is verified.
        words: of the user's own, key=value.

    Raises:
        UserError: a word does not belong to it, something that the line needs is missing, or the run fails.
    """
    config = resolve("run", line(card, words), called="verify")
    if missing := missing_parts(card, config):
        raise UserError(f"verify {card.name}: missing: {'; '.join(missing)}")
    record = run_folder.load(processes.run(config))
    if not ranks.here().first:
        return 0
    sentence, reproduced = mini_verdict(card, record) if config.options.mini else verdict(card, record)
    print(sentence)
    return 0 if reproduced else 1


def line(card: Card, words: Sequence[str]) -> list[str]:
    """The words of `evalkit run` for a card.

    With mini=true, the embedded encoder runs the card's adapter on the miniature of its task, trained for a moment.

    Raises:
        UserError: a word would change what is measured.
    """
    given = dict(word.partition("=")[::2] for word in words)
    if wrong := [word for word in words if "=" not in word]:
        raise UserError(f"verify takes a card and words key=value, got {wrong[0]!r}")
    if len(given) < len(words):
        raise UserError("verify: a key is given twice")
    mini = given.get("mini") == "true"  # which verifies nothing
    for key in given:
        of_protocol = key.partition(".")[0] in _SECTIONS and key not in (*_OF_DATA, *card.files)
        if of_protocol and key not in known_keys("run", card.task, card.run.get("adapter", ""), card.run["ckpt"]):
            raise UserError(f"verify {card.name}: unknown key {key!r}.{suggest(key, (*_OF_DATA, *card.files))}")
        if key in _OF_THE_LINE or (of_protocol and not mini):
            raise UserError(
                f"verify {card.name}: {key}= would change what is verified; evalkit run takes it: evalkit run "
                f"{shlex.join(joined(card.run))}"
            )
    kept = dict(card.run)
    if "ckpt" in given and card.trained_on:  # the same weights, which a path does not tell
        kept["trained_on"] = training_data.in_word(card.trained_on)
    if mini:
        # The demo has none of what these are about.
        starts = ("data.", "encoder.", "adapter.rerank") if "ckpt" in given else ("data.",)
        kept = {key: value for key, value in kept.items() if key in ("task", "adapter") or key.startswith(starts)}
        kept["ckpt"] = "demo"
        if kept.get("adapter") == "own_head" and "ckpt" not in given:
            raise UserError(f"verify {card.name}: mini=true needs ckpt=PATH, a checkpoint with a classifier of its own")
        if card.is_trained and kept.get("adapter") != "own_head":
            kept |= MINI_FRAMES
            if not set(card.files) & set(given):
                kept["adapter.epochs"] = "1"
            if "ckpt" in given and card.preset.family.startswith("vjepa2"):
                kept |= MINI_VJEPA
    return joined({**kept, **given})


def joined(words: Mapping[str, str]) -> list[str]:
    """Words key=value."""
    return [f"{key}={value}" for key, value in words.items()]


def missing_parts(card: Card, config: Config) -> list[str]:
    """What the line needs and is not there: data, and files beside the checkpoint."""
    if config.options.mini:
        return []
    missing = []
    root = data_root(config)
    if root is not None and not root.exists():
        missing.append(f"data set {card.task}, not at {root} (data.root=FOLDER)")
    for word, (key, places) in zip(card.file_words, card.files.items(), strict=True):
        section, _, name = key.partition(".")
        given, place = getattr(config, section).get(name), " and ".join(places)
        if given is None:
            missing.append(f"{word}, published at {place}")
        for path in given if isinstance(given, tuple) else [given] * (given is not None):
            if not Path(path).expanduser().exists():
                missing.append(f"{key}={path}, no such file, published at {place}")
    if config.options.ckpt == card.run["ckpt"]:
        if "://" in card.weights:
            missing.append(f"ckpt=FILE, published at {card.weights}")
        elif missing and not huggingface.is_cached(card.weights):
            missing.append(f"weights, {card.gigabytes:.1f} GB of {card.weights} on the hub, or ckpt=PATH")
    return missing


def mini_verdict(card: Card, record: Mapping[str, Any]) -> tuple[str, bool]:
    """What a miniature tells: that the line runs."""
    score, views, clip = record["scores"][0], record["task"]["protocol"]["views"], record["encoder"]["clip"]
    seen, own = ((shape["frames"], shape["size"]) for shape in (views, clip))
    smaller = "" if seen == own else f" on clips of {seen[0]} x {seen[1]} (the encoder's own: {own[0]} x {own[1]})"
    place = f"{record['task']['name']} with ckpt={record['encoder']['ckpt']}{smaller}"
    return (
        f"{card.name}: the card's command runs on {place}, {score['metric']} {score['value']:.1f}, which says "
        f"nothing of the published {next(iter(card.expected.values())):g}",
        True,
    )


def verdict(card: Card, record: Mapping[str, Any]) -> tuple[str, bool]:
    """A sentence on a result of the card's line, and whether all of its published numbers came out."""
    parameters = record["encoder"]["parameters"]
    wanted = card.preset.parameters
    if abs(parameters - wanted) > SAME_WEIGHTS * wanted:
        return (
            f"{card.name}: cannot tell: the checkpoint has {parameters:,} parameters, and {card.encoder} {wanted:,}",
            False,
        )
    scores = {score["metric"]: score for score in record["scores"]}
    judged = [_judge(card, metric, value, scores) for metric, value in card.expected.items()]
    worst = max(rank for rank, _ in judged)
    examples = f"{counted(record['data']['n_expected'], 'example')}"
    if sizes := record["data"].get("size_differences"):
        published = [split["published"] for split in sizes if split["split"] == "test"]
        examples += f" of {published[0]:,} published" if published else ""
    if failed := record["data"]["n_failed"]:
        examples += f", {failed:,} of which failed"
    sentences = "; ".join(text for _, text in judged)
    return f"{card.name}: {_WORDS[worst]}: {sentences}, on {examples} ({card.printed})", worst == 0


_WORDS = ("reproduced", "cannot tell", "differs")


def _judge(card: Card, metric: str, wanted: float, scores: Mapping[str, Mapping[str, Any]]) -> tuple[int, str]:
    """The place in `_WORDS` of one number, and what is said of it."""
    score = scores.get(metric)
    if score is None or score["value"] is None:
        return 1, f"{metric} was not scored, {wanted:g} is published"
    value, (low, high) = score["value"], score["ci95"]
    known = low is not None and high is not None
    text = f"{metric} {value:.1f}" + (f" ({low:.1f} to {high:.1f})" if known else "")
    difference = f"{text}, {value - wanted:+.1f} to the published {wanted:g}"
    if card.tolerance is not None:
        return (0 if abs(value - wanted) <= card.tolerance + 1e-9 else 2), f"{difference} ± {card.tolerance:g}"
    if not known:
        return 1, f"{difference}, without an interval"
    if not round(low, 1) <= wanted <= round(high, 1):  # published numbers are rounded
        return 2, difference
    if high - low > WIDEST:
        return 1, f"{difference}, and the interval is wider than {WIDEST:g} points: n is too small"
    return 0, difference
