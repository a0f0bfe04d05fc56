"""What is fuzzed: the words of every command, configurations, annotations of every task, results, checkpoints."""

import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from evalkit import plugins
from tests.fuzz.harness import Fuzzer, Input, command
from tests.fuzz.values import TEXTS, mutated, text
from tests.results import edits

COMMANDS = sorted(file.stem for file in (Path(plugins.__file__).parent / "commands").glob("[!_]*.py"))
# Called as they are typed; of the others, which work for long, the words alone are settled.
CALLED = ("cache", "compare", "export", "leaderboard", "list", "power", "score", "sign", "validate")
OWN_WORDS = [
    "results=",
    "out=",
    "to=",
    "key=",
    "signers=",
    "difference=",
    "baseline=",
    "correlation=",
    "prune=",
    "jobs=",
]


def words(folder: Path) -> Fuzzer:
    """Words of every command, near to those that it takes."""
    run = edits.write(folder)
    os.environ["EVALKIT_CACHE"] = str(folder / "cache")

    def draw(random: Random) -> Input:
        name = random.choice([*COMMANDS, random.choice(TEXTS)[:50]])
        given = [_word(random, name, run) for _ in range(random.randrange(5))]
        if name in CALLED or name not in COMMANDS:
            return Input(f"evalkit {name} {given!a}", lambda: command([name, *given]))
        if random.random() < 0.1:
            return Input(f"evalkit {name} {given!a} --help", lambda: command([name, *given, "--help"]))
        return Input(f"evalkit {name} {given!a}, settled", lambda: _settled(name, given, folder))

    return draw


def _word(random: Random, name: str, run: Path) -> str:
    match random.randrange(8):
        case 0:
            return text(random)
        case 1:
            return str(run)
        case 2:
            return random.choice(
                ["tasks", "encoders", "suites", "all=true", "task=./x.py", "suite=videoglue", "mini=true"]
            )
        case 3:
            return random.choice(OWN_WORDS) + text(random)
        case 4:
            return random.choice(["task=", "adapter="]) + random.choice(
                [*plugins.names("task"), *plugins.names("adapter")]
            )
        case 5:
            return random.choice(OWN_WORDS) + str(run)
    keys = _keys(random.choice(list(plugins.names("task"))))
    key = random.choice(keys)
    return f"{key[:-1] if random.random() < 0.1 else key}={text(random)}"


@cache
def _keys(task: str) -> list[str]:
    from evalkit.config.keys import known_keys

    return list(known_keys("run", task))


def _settled(name: str, given: list[str], folder: Path) -> None:
    """Settles the words as the command would, writes config.yaml, and reads the same configuration back from it."""
    from evalkit.config.parse import resolve
    from evalkit.datasets import suites
    from evalkit.launch import cells, suite

    if name == "sweep":
        cells.plan(given)
    elif name == "run" and any(word.startswith("suite=") for word in given):
        chosen = next(word for word in given if word.startswith("suite=")).removeprefix("suite=")
        suite.plan(suites.read(chosen), [word for word in given if not word.startswith("suite=")])
    elif name in ("run", "adapt", "check", "canary"):
        given = ["task=egoschema", *(["ckpt=demo"] if name != "check" else []), *given]
        config = resolve(name, list({word.partition("=")[0]: word for word in given}.values()))  # type: ignore[arg-type]
        _round_trip(config, folder / "written.yaml")


def _round_trip(config: Any, file: Path) -> None:
    from evalkit.config.parse import resolve

    file.write_text(config.to_yaml(), encoding="utf-8")
    assert resolve(config.command, [f"config={file}"]) == config, "config.yaml gives another configuration"


def configurations(folder: Path) -> Fuzzer:
    """Files of `config=`: one that evalkit wrote, mutated."""
    from evalkit.config.parse import resolve

    whole = resolve(
        "run", ["task=kinetics400", "ckpt=demo", "adapter.lr=0.1", "data.root=/d", "clip.frames=8"]
    ).to_yaml()
    file = folder / "config.yaml"
    folder.mkdir(exist_ok=True)

    def read(content: bytes) -> None:
        file.write_bytes(content)
        _round_trip(resolve("run", [f"config={file}"]), folder / "written.yaml")

    def draw(random: Random) -> Input:
        content = whole.replace("# ", "") if random.random() < 0.5 else whole
        for _ in range(random.choice((1, 1, 2, 4))):
            content_bytes = mutated(content.encode("utf-8", "surrogatepass"), random)
            content = content_bytes.decode("utf-8", "surrogateescape")
        if random.random() < 0.1:
            content = _bomb(random)
        raw = content.encode("utf-8", "surrogateescape" if random.random() < 0.5 else "replace")
        return Input(f"config= {raw[:600]!a}", lambda: read(raw))

    return draw


def _bomb(random: Random) -> str:
    """Yaml that is small and stands for much, or is nested deeply."""
    if random.random() < 0.5:
        depth = random.choice((100, 5_000))
        return "task: " + "[" * depth + "]" * depth
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 10)}]" for k in range(1, random.choice((3, 9)))]
    return "\n".join(lines)


def annotations(folder: Path) -> Fuzzer:
    """Annotation files of every task in their published layouts, mutated."""
    from tests.fuzz.layouts import LAYOUTS

    whole: dict[str, Path] = {}
    for name, write in LAYOUTS.items():
        root = folder / "whole" / name
        root.mkdir(parents=True)
        whole[name] = write(root)

    def draw(random: Random) -> Input:
        name = random.choice(list(whole))
        root = folder / "whole" / name
        files = sorted(
            file
            for file in root.rglob("*")
            if file.is_file() and file.suffix in (".json", ".csv", ".txt", ".mat", ".tsv")
        )
        file = random.choice(files)
        content = file.read_bytes()
        for _ in range(random.choice((1, 1, 2))):
            content = mutated(content, random)
        place = folder / "mutated" / name

        def act() -> None:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(root, place, symlinks=True)
            (place / file.relative_to(root)).write_bytes(content)
            _load(name, place / whole[name].relative_to(root))

        return Input(f"task={name} {file.relative_to(root)} {content[:600]!a}", act)

    return draw


def _load(name: str, root: Path) -> None:
    from evalkit.config.parse import resolve
    from evalkit.pipeline.task_data import load_task

    words = ["data.tagger=false"] if name == "nextqa_open" else []  # which needs nltk
    load_task(resolve("check", [f"task={name}", f"data.root={root}", *words]))


def results(folder: Path) -> Fuzzer:
    """Files of a result, mutated; read by every command that takes results."""
    whole = edits.write(folder / "whole")
    run = folder / "results" / whole.name
    commands = [
        ["validate", str(run)],
        ["score", str(run)],
        ["compare", str(run), str(whole)],
        ["leaderboard", f"results={run}", f"out={folder / 'board.md'}"],
        ["leaderboard", f"results={run}", f"out={folder / 'board.html'}"],
        ["leaderboard", f"results={run}", f"out={folder / 'board.csv'}"],
        ["export", "to=csv", f"results={run}", f"out={folder / 'csv'}"],
        ["export", "to=eee", f"results={run}", f"out={folder / 'eee'}"],
    ]
    os.environ["EVALKIT_CACHE"] = str(folder / "cache")

    def draw(random: Random) -> Input:
        file = random.choice(["result.json"] * 5 + ["predictions.jsonl"] * 3 + ["config.yaml", "evidence.jsonl"])
        content = mutated((whole / file).read_bytes(), random)
        typed = random.choice(commands)
        hashed = random.random() < 0.5

        def act() -> None:
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(whole, run)
            (run / file).write_bytes(content)
            if hashed and file != "result.json":  # else a wrong hash hides what comes after
                _hash_again(run)
            command(typed)

        return Input(f"{typed[0]} {file} {content[:600]!a}", act)

    return draw


def _hash_again(run: Path) -> None:
    import hashlib

    record = json.loads((run / "result.json").read_text())
    for part, key, name in (
        ("data", "predictions_sha256", "predictions.jsonl"),
        ("data", "evidence_sha256", "evidence.jsonl"),
        ("provenance", "config_sha256", "config.yaml"),
    ):
        record[part][key] = hashlib.sha256((run / name).read_bytes()).hexdigest()
    (run / "result.json").write_text(json.dumps(record))


def checkpoints(folder: Path) -> Fuzzer:
    """A checkpoint's folder as evalkit writes it, and its weights as .npz and .pt, mutated."""
    import numpy as np
    import torch

    from evalkit.api import Clip
    from evalkit.encoders import Spec, load_encoder, save_encoder

    whole = folder / "whole"
    whole.mkdir(parents=True)
    spec = Spec(
        "longvivit", Clip(frames=4, size=32), {"dim": 24, "depth": 1, "heads": 3, "hidden": 48, "text": None}, None
    )
    module = spec.build()
    save_encoder(module, spec, whole)
    weights = module.state_dict()
    torch.save({"state_dict": {f"model.{name}": value for name, value in weights.items()}}, folder / "weights.pt")
    np.savez(folder / "weights.npz", **{name: value.numpy() for name, value in weights.items()})
    place = folder / "mutated"

    def draw(random: Random) -> Input:
        inside = sorted(file for file in whole.iterdir() if file.is_file())
        file = random.choice([*inside, *inside, folder / "weights.pt", folder / "weights.npz"])
        content = mutated(file.read_bytes(), random)
        # Mostly the header, where the shapes and the pickle are.
        if file.suffix not in (".json", ".pt") and random.random() < 0.5:
            content = mutated(file.read_bytes()[:2000], random) + file.read_bytes()[2000:]

        def act() -> None:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(whole, place)
            (place / file.name).write_bytes(content)
            if file.parent == whole:
                load_encoder(str(place))
            else:
                load_encoder(str(place / file.name), model=str(whole), prefix="model." if file.suffix == ".pt" else "")

        return Input(f"ckpt= {file.name} {content[:400]!a}", act)

    return draw


FUZZERS: dict[str, Callable[[Path], Fuzzer]] = {
    fuzzer.__name__: fuzzer for fuzzer in (words, configurations, annotations, results, checkpoints)
}
