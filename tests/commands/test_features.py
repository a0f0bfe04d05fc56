"""Features out and in: a run scores files of its encoder's features as the encoder itself."""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evalkit as evalkit_package
from evalkit.cli import main
from evalkit.encoders import load_encoder
from evalkit.errors import UserError
from evalkit.features.exchange import tables
from evalkit.heads.closed_form.neighbors import NeighborGallery
from evalkit.metrics.ranks import nearest
from evalkit.results import run_folder, validate
from tests.pipeline import tiny_world
from tests.pipeline.tiny_world import run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("decoding_here")]

world = tiny_world.world

# Its first weights come from torch's own generator, in the state in which loading the encoder left it.
DRAWN = (
    f"adapter={Path(evalkit_package.__file__).parent / 'commands/workspace/templates/own_adapter.py'} adapter.epochs=2"
)

RETRIEVAL = '''
"""Films by what is said of them; of each film two things."""

from pathlib import Path

from evalkit.api import Example, Task
from evalkit.metrics import retrieval

ADAPTER = "retrieval"


def task(root: Path) -> Task:
    """Finds films by their captions.

    Args:
        root: folder of the films.
    """
    films = sorted(root.glob("*.mp4"))[:7]
    captions = [(film, side, f"a shape moves {side} {film.stem}") for film in films for side in ("left", "right")]
    return Task(
        test=[Example(f"{film.stem}-{side}", film, film.name, text=text) for film, side, text in captions],
        score=retrieval,
    )
'''


def evalkit(*words: str) -> list[str]:
    """The lines that a command printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([*words, *(["canary=false"] if words[0] == "features" else [])]) == 0
    return printed.getvalue().splitlines()


def same(one: Path, other: Path) -> None:
    """Both runs scored the same to the last digit, failures and their reasons included, and both are valid."""
    mine, theirs = run_folder.load(one), run_folder.load(other)
    assert mine["scores"] == theirs["scores"] and mine["data"] == theirs["data"]
    if mine["selection"]:
        assert mine["selection"]["val_scores"] == theirs["selection"]["val_scores"]
    assert [row.prediction for row in run_folder.load_rows(one)] == [
        row.prediction for row in run_folder.load_rows(other)
    ]
    assert validate.validate(one) == validate.validate(other) == []
    assert theirs["cost"]["encoder_forwards"] == 0


@pytest.mark.parametrize(
    ("part", "form", "heads"),
    [
        ("pooled", "npz", ["adapter=knn adapter.k=3", "adapter=ridge", "adapter=logistic", DRAWN]),
        ("tokens", "safetensors", ["adapter.head=attentive adapter.epochs=2"]),
        ("pooled", "parquet", ["adapter.head=linear adapter.epochs=2 clip.crops=3"]),
    ],
)
def test_features_in_files_score_as_the_run_that_encoded(
    part: str, form: str, heads: Sequence[str], tmp_path: Path, world: Path, tiny: Path
) -> None:
    given = ["task=folder", f"data.root={world / 'videos.csv'}", "workers=1"]
    crops = [word for word in heads[0].split() if word.startswith("clip.")]
    out = tmp_path / "features"
    told = evalkit("features", *given, *crops, f"ckpt={tiny}", f"out={out}", f"part={part}", f"as={form}")
    assert told[-1] == str(out) and "1 without features: not a video" in told[0]
    for head in heads:
        mine = run(tmp_path / "mine", *given, f"ckpt={tiny}", *head.split())
        theirs = run(tmp_path / "theirs", *given, f"ckpt=features:{out}", *head.split())
        same(mine, theirs)
    record = run_folder.load(theirs)
    assert record["encoder"]["name"] == "features" and record["encoder"]["parameters"] == 0
    assert record["encoder"]["settings"]["features"]["made_by"]["sha256"] == run_folder.load(mine)["encoder"]["sha256"]


def test_nothing_is_encoded_twice_and_each_row_says_where_the_store_has_it(
    tmp_path: Path, world: Path, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from evalkit.features.store import open_default

    given = ["task=folder", f"data.root={world / 'videos.csv'}", "workers=1", f"ckpt={tiny}"]
    ran = run_folder.load(run(tmp_path / "mine", *given, "adapter=ridge"))
    assert ran["cost"]["encoder_forwards"] + ran["cost"]["cache_hits"] > 0
    evalkit("features", *given, f"out={tmp_path / 'features'}", "split=test")
    with np.load(tmp_path / "features/test-00000.npz") as file:
        keys, rows, targets = file["keys"].tolist(), file["pooled"], file["targets"].tolist()
        assert sorted(file.files) == sorted([*tables.COLUMNS, "pooled"])
    found = open_default("").find([bytes.fromhex(key) for key in keys])
    assert [found[bytes.fromhex(key)][0].tolist() for key in keys] == rows.tolist()
    manifest = json.loads((tmp_path / "features/manifest.json").read_text())
    assert manifest["encoder"]["sha256"] == ran["encoder"]["sha256"]
    assert manifest["splits"] == {"test": {"examples": 4, "rows": 4, "failed": 0, "files": ["test-00000.npz"]}}
    assert targets == ["0", "1", "0", "1"] and manifest["task"]["name"] == "folder"


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, tiny: Path, capsys: Any) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["features", "task=folder", "mini=true", f"ckpt={tiny}", f"out={tmp_path}"]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err


def test_texts_come_along_and_an_index_answers_as_the_ranks_do(tmp_path: Path, world: Path, tiny: Path) -> None:
    faiss = pytest.importorskip("faiss", reason="pip install 'video-evalkit[faiss]'")
    (tmp_path / "captions.py").write_text(RETRIEVAL)
    given = [f"task={tmp_path / 'captions.py'}", f"data.root={world / 'films'}", "workers=1"]
    out = tmp_path / "features"
    evalkit("features", *given, f"ckpt={tiny}", f"out={out}", "adapter=retrieval", "as=faiss")
    mine = run(tmp_path / "mine", *given, f"ckpt={tiny}")
    theirs = run(tmp_path / "theirs", *given, f"ckpt=features:{out}")
    same(mine, theirs)
    index, ids = faiss.read_index(str(out / "test.faiss")), json.loads((out / "test.ids.json").read_text())
    assert ids[0] == ["00-left", "00-right"] and index.ntotal == len(ids) == 7
    texts = tables.read_texts(out)
    rows = run_folder.load_rows(mine)
    assert len(rows) == len(texts) == 14
    vectors = torch.nn.functional.normalize(torch.stack([*texts.values()]).float(), dim=1)
    found = index.search(vectors.numpy(), 7)[1]
    for row, places in zip(rows, found.tolist(), strict=True):
        assert row.detail and [f"{ids[place][0].split('-')[0]}.mp4" for place in places] == row.detail["nearest"]
    with np.load(out / "test-00000.npz") as file:  # 14 entries share seven rows
        assert len(file["ids"]) == 14 and file["pooled"].shape[0] == 7 and file["rows"].max() == 6
        pooled = torch.from_numpy(file["pooled"])
    neighbors = NeighborGallery(pooled, torch.zeros(7, dtype=torch.int64), 1).nearest(pooled, 7)
    queries = torch.nn.functional.normalize(pooled, dim=1)
    assert index.search(queries.numpy(), 7)[1].tolist() == neighbors.index.tolist()
    assert nearest(vectors, queries, 7).tolist() == found.tolist()


def test_what_needs_the_encoder_itself_is_refused_in_one_line(
    tmp_path: Path, world: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["task=folder", f"data.root={world / 'videos.csv'}", "workers=1"]
    out = tmp_path / "features"
    evalkit("features", *given, f"ckpt={tiny}", f"out={out}", "split=test")
    ckpt = f"ckpt=features:{out}"
    refused = [
        (["run", *given, ckpt, "adapter=finetune"], "nothing can be encoded or trained"),
        (["run", *given, ckpt, "adapter=contrastive"], "and no encoder"),
        (["run", *given, ckpt, "adapter=zero_shot"], "no texts (texts.npz)"),
        (["run", *given, ckpt, "adapter.head=attentive"], "this adapter reads tokens"),
        (["run", *given, ckpt, "adapter=knn"], "is fitted on train"),
        (["run", *given, ckpt, "clip.frames=2", "adapter=knn"], "made with clip.frames=4; this run has 2"),
        (["run", "task=kinetics400", "mini=true", ckpt], "made for a task of name folder; this run's is"),
        (["features", *given, ckpt, f"out={tmp_path / 'again'}"], "takes an encoder"),
        (["features", *given, f"ckpt={tiny}", f"out={tmp_path / 'f'}", "as=faiss", "part=tokens"], "part=pooled"),
        (["features", *given, f"ckpt={tiny}", f"out={tmp_path / 'f'}", "adapter=probe"], "leave it out"),
        (["canary", ckpt], "there is nothing to feed"),
    ]
    if "faiss" not in _installed():
        refused[8] = (refused[8][0], "pip install 'video-evalkit[faiss]'")
    for words, message in refused:
        capsys.readouterr()
        assert main(words) == 2, words
        told = capsys.readouterr().err.strip().splitlines()
        assert told[-1].startswith("evalkit: ") and message in told[-1], told


def _installed() -> list[str]:
    import importlib.util

    return [name for name in ("faiss",) if importlib.util.find_spec(name)]


def test_the_module_says_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no features there"):
        load_encoder(f"features:{tmp_path}")
    with pytest.raises(UserError, match="encoder.prefix=a has no effect on features"):
        load_encoder(f"features:{tmp_path}", prefix="a")
