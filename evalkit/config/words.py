"""The words `key=value` as they were typed, and what was probably meant by one that is none, or by an unknown key."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from evalkit import plugins
from evalkit.config.options import SECTIONS, Options
from evalkit.errors import UserError, check_word, letters, nearest, suggest
from evalkit.weights import presets

# What other programs call a key, by its letters and digits.
CALLED = {
    **dict.fromkeys(("model", "encoder", "checkpoint", "backbone", "weights", "pretrained", "modelname"), "ckpt"),
    **dict.fromkeys(("dataset", "benchmark", "tasks", "eval"), "task"),
    **dict.fromkeys(("data", "datadir", "dataroot", "datapath", "root", "path", "videodir", "videoroot"), "data.root"),
    **dict.fromkeys(("output", "outputdir", "outputpath", "outdir", "savedir", "resultsdir", "results"), "out"),
    **dict.fromkeys(("gpus", "numgpus", "ngpus", "nprocpernode", "worldsize"), "devices"),
    **dict.fromkeys(("gpu", "cuda", "accelerator"), "device"),
    **dict.fromkeys(("numnodes", "nnodes"), "nodes"),
    **dict.fromkeys(("lr", "learningrate", "baselr"), "adapter.lr"),
    **dict.fromkeys(("wd", "decay"), "adapter.weight_decay"),
    **dict.fromkeys(("epochs", "numepochs", "maxepochs", "epoch"), "adapter.epochs"),
    **dict.fromkeys(("numworkers", "nworkers"), "workers"),
    **dict.fromkeys(("frames", "numframes", "nframes"), "clip.frames"),
    **dict.fromkeys(("size", "resolution", "imgsize", "imagesize", "cropsize"), "clip.size"),
    **dict.fromkeys(("protocol", "setting"), "data.protocol"),
    **dict.fromkeys(("head", "probe", "classifier"), "adapter"),
    **dict.fromkeys(("llm", "languagemodel"), "lm"),
    **dict.fromkeys(("shots", "fewshot", "kshot", "nshot", "numfewshot"), "trainer.shots"),
    **dict.fromkeys(("dtype", "amp", "fp16"), "precision"),
    **dict.fromkeys(("small", "tiny", "demo", "debug", "dryrun"), "mini"),
    **dict.fromkeys(("name", "runname"), "encoder.name"),
}
RESUMES = ("resume", "resumefrom", "continue", "overwrite", "skipexisting")


def pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Key and value of each word.

    Raises:
        UserError: a word is not key=value; it says how to write what was meant.
    """
    for place, word in enumerate(words):
        key, equals, value = word.partition("=")  # only the first: ckpt=/d/epoch=3-step=100.ckpt
        if not (key and equals):
            raise UserError(f"expected key=value, got {word!r}.{_meant(words, place)}")
        following = words[place + 1] if place + 1 < len(words) else "="
        if "=" not in following and not value:
            raise UserError(
                f"expected key=value, got {word!r} and {following!r}. Write {key}={following}, without blanks"
            )
        if "=" not in following and value.endswith(","):
            joined = f"{word}{following}"
            raise UserError(f"expected key=value, got {word!r} and {following!r}. Write {joined}, without blanks")
        check_word(word)
        yield key, value


def _meant(words: Sequence[str], place: int) -> str:
    """How to write what was meant by a word that is not key=value; empty where that is open."""
    word, following = words[place], [*words[place + 1 : place + 3], "", ""]
    options = {option.name: option.type for option in fields(Options)}
    if word.startswith("-"):
        key, value = word.lstrip("-"), ""
        key = CALLED.get(letters(key)) or next((name for name in options if letters(name) == letters(key)), key)
        if options.get(key) == "bool" and following[0] not in ("true", "false"):
            value = "true"
        elif following[0] and "=" not in following[0] and not following[0].startswith("-"):
            value = following[0]
        if value:
            return f" Write {key}={value}, without dashes"
        return suggest(word, ["--help"])
    if following[0] == "=" and following[1]:
        return f" Write {word}={following[1]}, without blanks"
    if following[0].startswith("=") and len(following[0]) > 1:
        return f" Write {word}{following[0]}, without blanks"
    before, equals, value = (words[place - 1] if place else "").partition("=")
    if equals and value and (before.startswith("adapter.") or _is_number(word)):
        return f" Separate values by commas: {before}={value},{word}"
    key, colon, value = word.partition(":")
    if colon and value and (key in options or key.partition(".")[0] in SECTIONS):
        return f" Did you mean '{key}={value}'?"
    if options.get(word) == "bool":
        return f" Did you mean '{word}=true'?"
    file, of_family = Path(word), colon and key in ("random", "features", *plugins.names("encoder"))
    is_weights = file.suffix in (".pt", ".pth", ".ckpt", ".safetensors") or (file / "config.json").is_file()
    if of_family or is_weights or plugins.names_own_encoder(word):
        return f" Did you mean 'ckpt={word}'?"
    known = {"task": [*plugins.names("task")], "ckpt": ["demo", *presets.presets()]}
    exact = next((section for section, names in known.items() if word in names), None)
    for section, names in known.items():
        if section == exact or (not exact and (word := nearest(word, names) or word) in names):
            return f" Did you mean '{section}={word}'?"
    return ""


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def called(name: str, known: Collection[str]) -> str | None:
    """The key that other programs call so, where it is among those known."""
    key = CALLED.get(letters(name))
    return key if key is not None and key in known else None
