"""Files of features that others wrote with plain numpy: what is read, what counts as failed, and what is refused."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from evalkit.api import Example, FeatureSpec, Task, Views
from evalkit.cli import main
from evalkit.errors import UserError
from evalkit.features.exchange import tables
from evalkit.features.exchange.module import FeatureFiles
from evalkit.features.exchange.rows import stored_rows
from evalkit.features.sources import parts
from evalkit.metrics import top1_top5
from evalkit.results import run_folder, validate
from evalkit.video.clips import Decoded, Failure, Request

TASK = '''
"""Three classes of videos that lie nowhere."""

from pathlib import Path

from evalkit.api import Example, Task
from evalkit.metrics import top1_top5


def task() -> Task:
    """Names the class."""

    def some(split: str, count: int) -> list[Example]:
        return [Example(f"{split}{k}", Path(f"nowhere/{split}{k}.mp4"), k % 3) for k in range(count)]

    return Task(train=some("a", 30), val=some("b", 6), test=some("c", 9), score=top1_top5, classes=("x", "y", "z"))
'''
GENERATOR = np.random.default_rng(0)


def vectors(count: int) -> np.ndarray[Any, Any]:
    """Features (n, 4) that tell the class k % 3."""
    return (np.eye(4)[np.arange(count) % 3] * 3 + GENERATOR.normal(size=(count, 4))).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What somebody else saved, and the task that it is of."""
    (tmp_path / "my_task.py").write_text(TASK)
    out = tmp_path / "theirs"
    out.mkdir()
    for split, name, count in (("train", "a", 30), ("val", "b", 6), ("test", "c", 9)):
        np.savez(out / f"{split}.npz", ids=[f"{name}{k}" for k in range(count)], pooled=vectors(count))
    return out


def save(file: Path, **changes: Any) -> None:
    """Writes the arrays of a file again, some of them changed; None leaves one out."""
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})


def run(folder: Path, *words: str) -> dict[str, Any]:
    """The record of a run of knn."""
    out = folder.parent / "results"
    given = [f"task={folder.parent / 'my_task.py'}", f"ckpt=features:{folder}", f"out={out}"]
    assert main(["run", *given, "adapter=knn", "adapter.k=3", *words]) == 0
    (file,) = out.rglob("result.json")
    assert validate.validate(file.parent) == []
    return run_folder.load(file.parent)


def test_features_of_videos_that_are_nowhere_are_scored(folder: Path) -> None:
    record = run(folder)
    with np.load(folder / "train.npz") as train, np.load(folder / "test.npz") as test:
        unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (train["pooled"], test["pooled"])]
    cosines = unit[1] @ unit[0].T
    best = np.argsort(-cosines, axis=1)[:, :3]
    weights = np.exp(np.take_along_axis(cosines, best, 1) / 0.07)
    votes = np.stack([(weights * (best % 3 == c)).sum(1) for c in range(3)], 1)
    expected = 100 * float((votes.argmax(1) == np.arange(9) % 3).mean())
    assert record["scores"][0]["value"] == pytest.approx(expected, abs=1e-6)
    assert record["status"] == "complete" and record["encoder"]["clip"] == {}
    assert record["task"]["protocol"]["views"]["frames"] == 0  # nobody said
    assert record["cost"]["encoder_forwards"] == record["cost"]["cache_misses"] == 0


def test_missing_ids_and_nan_count_as_wrong_and_others_are_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pooled = vectors(10)
    pooled[4, 1] = np.nan
    ids = [*(f"c{k}" for k in range(8)), "who", "what"]  # c8 is missing
    np.savez(folder / "test.npz", ids=ids, pooled=pooled)
    record = run(folder)
    assert record["data"]["n_expected"] == 9 and record["data"]["n_failed"] == 2
    assert {of["id"]: of["reason"] for of in record["data"]["failures"]} == {
        "c4": "test.npz, row 4: NaN or infinity",
        "c8": "no features of it in theirs",
    }
    assert record["encoder"]["settings"]["features"]["other_ids"] == 2
    told = capsys.readouterr().err
    assert "2 ids that the task does not have, first 'who' of test" in told
    assert "1 of 9 test examples have no features there" in told and "'c8'" in told


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"ids": [f"c{k % 8}" for k in range(9)]}, "test.npz, row 8: id 'c0' appears twice, first in test.npz, row 0"),
    ({"pooled": np.zeros((7, 4), np.float32)}, "test.npz, row 7: 9 ids, and rows of `pooled` 7"),
    ({"pooled": np.zeros((9, 5), np.float32)}, "row 0 of `pooled` has shape (4,), those of test.npz (5,)"),
    ({"pooled": np.zeros((9, 2, 4), np.float32)}, "wanted a float array `pooled` (rows, E); found float32 (9, 2, 4)"),
    ({"pooled": np.zeros((9, 4), np.int64)}, "wanted a float array `pooled` (rows, E); found int64 (9, 4)"),
    ({"pooled": None}, "wanted an array `pooled`, `frames` or `tokens`; found ids"),
    ({"ids": None}, "wanted an array `ids` (n,) of text, one for each row; it has none"),
    ({"ids": np.array([f"c{k}" for k in range(9)], object)}, "cannot read"),
    ({"ids": [f"d{k}" for k in range(9)], "views": [0] * 8}, "wanted an array `views` (9,)"),
    ({"rows": [*range(8), 9]}, "entry 8: rows has 9, and there are 9"),
    ({"rows": np.array([*range(8), 2**63], np.uint64)}, "wanted an array `rows` (9,) of whole numbers from 0"),
    ({"views": [1] * 9}, "example 'c0' has views [1]; clip.clips=1 clip.crops=1 are 1 of each"),
    ({"spans": [[0.0, 1.0]] * 8}, "wanted an array `spans` (9, 2)"),
    ({"spans": [[0.0, 1.0]] * 9}, "its span is 0 to 1 s, that of example 'c0' the whole video"),
    ({"pooled": np.zeros((9, 4), np.longdouble)}, "wanted a float array `pooled` (rows, E); found float128 (9, 4)"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_a_file_that_is_not_as_it_should_be_is_named_in_one_line(
    folder: Path, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(folder / "test.npz", **changes)
    task = folder.parent / "my_task.py"
    assert main(["run", f"task={task}", f"ckpt=features:{folder}", "adapter=knn", f"out={folder.parent / 'r'}"]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("evalkit: ") and message in told


def test_a_file_that_was_cut_off_or_lost_is_told(folder: Path) -> None:
    rows = {"train": 30, "val": 6, "test": 9}
    (folder / "manifest.json").write_text(json.dumps({"splits": {name: {"rows": n} for name, n in rows.items()}}))
    FeatureFiles(folder)
    save(folder / "train.npz", ids=[f"a{k}" for k in range(20)], pooled=vectors(20))
    with pytest.raises(
        UserError, match=r"manifest\.json says 30 rows of train, and its files have 20: a file is missing"
    ):
        FeatureFiles(folder)
    (folder / "train.npz").unlink()
    with pytest.raises(UserError, match="30 rows of train, and its files have 0"):
        FeatureFiles(folder)
    (folder / "test.npz").write_bytes((folder / "test.npz").read_bytes()[:300])
    with pytest.raises(UserError, match=r"cannot read .*test\.npz as npz: .*; it is cut off or damaged"):
        FeatureFiles(folder)


def test_bytes_in_another_order_are_read(folder: Path) -> None:
    with np.load(folder / "test.npz") as archive:
        pooled = archive["pooled"]
    save(folder / "test.npz", pooled=pooled.astype(">f4"))
    (table,) = (table for table in FeatureFiles(folder).tables if table.split == "test")
    assert np.array_equal(table.read("pooled", range(9)).numpy(), pooled)


def test_pickles_are_never_read(folder: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (folder / "ran",)

    for name in ("ids", "pooled", "targets"):
        with np.load(folder / "val.npz") as archive:
            arrays = dict(archive)
        np.savez(folder / "test.npz", **{**arrays, name: np.array([Runs()] * 6, object)})
        with pytest.raises(UserError, match="test.npz"):
            FeatureFiles(folder)
    assert not (folder / "ran").exists()


def test_a_folder_of_features_that_is_named_as_an_encoder_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", f"task={folder.parent / 'my_task.py'}", f"ckpt={folder}", "adapter=knn"]) == 2
    assert (
        f"ckpt={folder} holds files of features, and no encoder: give ckpt=features:{folder}" in capsys.readouterr().err
    )


def test_other_ids_alone_are_refused(folder: Path) -> None:
    for split in ("train", "val", "test"):
        save(folder / f"{split}.npz", ids=np.arange(30 if split == "train" else 6 if split == "val" else 9))
    examples = [Example("c0", Path("c0.mp4"), 0)]
    with pytest.raises(UserError, match="whose ids are like 'c0'; it has '0'"):
        stored_rows(FeatureFiles(folder), Task(examples, top1_top5), "mine", Views(frames=1, size=1))


def request(example: Example, views: Views) -> list[Request]:
    return [Request(source.video, source.span, views, 1, 1) for source in parts(example, views)]


def test_views_are_in_order_and_windows_are_told_by_their_spans(tmp_path: Path) -> None:
    views = Views(frames=1, size=1, clips=2, window=2.0)
    example = Example("a", Path("a.mp4"), 0, span=(0.0, 6.0))
    spans = [(2.0, 4.0), (0.0, 2.0), (0.0, 2.0), (2.0, 4.0)]
    given: dict[str, Any] = {"ids": ["a"] * 4, "spans": spans, "views": [1, 1, 0, 0]}
    np.savez(tmp_path / "test.npz", pooled=np.arange(8.0).reshape(4, 2), **given)
    features = FeatureFiles(tmp_path)
    pool = stored_rows(features, Task([example], top1_top5), "mine", views)
    found = [*pool.read(request(example, views))]
    first, second, third = found
    assert isinstance(first, Decoded) and first.pixels.tolist() == [2, 1]
    assert isinstance(second, Decoded) and second.pixels.tolist() == [3, 0]
    assert third == Failure(f"no features of it in {tmp_path.name}")
    assert FeatureSpec("pooled").take(features(second.pixels)).tolist() == [[6.0, 7.0], [0.0, 1.0]]
    together = [*pool.read([request(example, views)[0]._replace(span=None, windows=((0.0, 2.0), (2.0, 4.0)))])]
    assert isinstance(together[0], Decoded) and together[0].pixels.tolist() == [2, 1, 3, 0]
    moved = Example("a", Path("a.mp4"), 0, span=(1.0, 5.0))
    with pytest.raises(UserError, match=r"row 0: its span is 2 to 4 s, that of example 'a' 1 to 5 s"):
        stored_rows(features, Task([moved], top1_top5), "mine", Views(frames=1, size=1))


def test_a_video_that_two_examples_ask_about_is_served_by_the_rows_of_either(tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", ids=["b"], pooled=np.ones((1, 2)))
    examples = [Example(name, Path("one.mp4"), 0) for name in "ab"]
    views = Views(frames=1, size=1)
    pool = stored_rows(FeatureFiles(tmp_path), Task(examples, top1_top5), "mine", views)
    assert [of.pixels.tolist() for of in pool.read(request(examples[0], views)) if isinstance(of, Decoded)] == [[0]]


@pytest.mark.parametrize("form", ["npz", "safetensors", "parquet"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_each_form_gives_back_what_was_written(form: tables.Form, dtype: str, tmp_path: Path) -> None:
    array = GENERATOR.normal(size=(3, 2, 4, 5)).astype(dtype)
    columns = {
        "ids": np.array(["a", "b", "c", "ä"]),
        "rows": np.array([0, 1, 1, 2]),
        "views": np.array([0, 0, 1, 0]),
        "spans": np.array([[0.5, 1], [np.nan, np.nan], [2, 3], [4, 5]]),
    }
    tables.write(tmp_path / f"val-00000.{form}", form, "tokens", array, columns)
    (table,) = tables.read_tables(tmp_path)
    assert table.split == "val" and table.ids == ["a", "b", "c", "ä"] and table.views is not None
    assert table.views.tolist() == [0, 0, 1, 0] and table.spans is not None
    assert np.array_equal(table.spans, columns["spans"], equal_nan=True)
    read = table.read("tokens", table.rows.tolist())
    assert read.dtype == getattr(torch, dtype) and np.array_equal(read.numpy(), array[columns["rows"]])


def test_the_file_of_the_documents_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs/features.md").read_text(encoding="utf-8")
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], {})
    features = FeatureFiles(tmp_path / "theirs")
    assert features.tables[0].ids == ["video1", "video2"] and features.parts == {"pooled": (2,)}


def test_compressed_and_fortran_arrays_are_read_too(tmp_path: Path) -> None:
    array = np.asfortranarray(GENERATOR.normal(size=(4, 3)))
    np.savez_compressed(tmp_path / "train.npz", ids=["a", "b", "c", "d"], pooled=array)
    np.savez(tmp_path / "test.npz", ids=["a", "b", "c", "d"], pooled=array)
    test, train = tables.read_tables(tmp_path)
    assert isinstance(test.arrays["pooled"], np.memmap) and not isinstance(train.arrays["pooled"], np.memmap)
    for table in (test, train):
        assert np.array_equal(table.read("pooled", [2, 0]).numpy(), array[[2, 0]])


def test_features_are_known_by_their_content(folder: Path) -> None:
    one = FeatureFiles(folder).digest
    save(folder / "test.npz", pooled=vectors(9))
    assert not torch.equal(one, FeatureFiles(folder).digest)


def test_a_list_in_parquet_that_is_shorter_is_named_by_its_row(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pip install 'video-evalkit[parquet]'")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'video-evalkit[parquet]'")
    table = pyarrow.table({"ids": ["a", "b"], "pooled": [[1.0, 2.0], [3.0]]})
    parquet.write_table(table, tmp_path / "test.parquet")
    with pytest.raises(UserError, match="row 1: `pooled` has 1 numbers, row 0 2"):
        FeatureFiles(tmp_path)


def test_a_manifest_that_says_nonsense_is_no_traceback(folder: Path) -> None:
    for content in ("[]", "{", '{"encoder": {"clip": {"frames": "many"}}}', '{"encoder": {"clip": {"lens": 1}}}'):
        (folder / "manifest.json").write_text(content)
        with pytest.raises(UserError, match=r"manifest\.json"):
            FeatureFiles(folder)
    for state in ("", "abc", "AAAA"):
        (folder / "manifest.json").write_text(json.dumps({"random": {"seed": 0, "state": state}}))
        with pytest.raises(UserError, match=r"random\.state"):
            FeatureFiles(folder).restore_random(0)
        FeatureFiles(folder).restore_random(1)
    (folder / "manifest.json").write_text(json.dumps({"task": None, "views": {}, "encoder": None, "notes": [1]}))
    assert run(folder)["status"] == "complete"


@pytest.mark.parametrize("beside", [{"rows": "all"}, "made in May", [1]])
def test_what_stands_beside_the_splits_of_a_manifest_is_not_read(folder: Path, beside: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps({"splits": {"dev": beside, "train": {"rows": 31}}}))
    with pytest.raises(UserError, match="says 31 rows of train, and its files have 30"):
        FeatureFiles(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"task": "mine"}, "task: 'mine' is not of type 'object', 'null'"),
        ({"task": {"name": 3}}, "task.name: 3 is not of type 'string', 'null'"),
        ({"task": {"version": "1"}}, "task.version: '1' is not of type 'integer', 'null'"),
        ({"encoder": "demo"}, "encoder: 'demo' is not of type"),
        ({"encoder": {"clip": [8, 224]}}, "encoder.clip: [8, 224] is not of type"),
        ({"encoder": {"sha256": 12}}, "encoder.sha256: 12 is not of type"),
        ({"views": []}, "views: [] is not of type"),
        ({"splits": {"test": {"rows": "9"}}}, "splits.test.rows: '9' is not of type"),
        ({"splits": ["test"]}, "splits: ['test'] is not of type"),
        ({"failures": {"c1": "gone"}}, "failures: {'c1': 'gone'} is not of type 'array', 'null'"),
        ({"failures": ["c1"]}, "failures.0: 'c1' is not of type 'object'"),
        ({"failures": [{"split": "test"}]}, "failures.0: 'id' is a required property"),
        ({"failures": [{"split": "tset", "id": "c1"}]}, "failures.0.split: 'tset' is not one of"),
        ({"random": 3}, "random: 3 is not of type"),
        ({"random": {"seed": "0"}}, "random.seed: '0' is not of type"),
        ({"views": {"frames": 8} | {str(k): k for k in range(100)}, "task": "x" * 500}, "xxx..."),
    ],
)
def test_a_field_of_the_manifest_of_another_type_is_named(folder: Path, content: dict[str, Any], message: str) -> None:
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        FeatureFiles(folder)
    told = str(error.value)
    assert told.startswith(f"{folder / 'manifest.json'}: ") and message in told and len(told) < 400


def test_a_split_that_is_there_whole_and_in_parts_is_told(folder: Path) -> None:
    (folder / "test-00000.npz").write_bytes((folder / "test.npz").read_bytes())
    task = Task([Example("c0", Path("c0.mp4"), 0)], top1_top5)
    with pytest.raises(UserError) as error:
        stored_rows(FeatureFiles(folder), task, "mine", Views(frames=1, size=1))
    assert str(error.value).startswith(
        f"{folder / 'test.npz'}, row 0: id 'c0' appears twice, first in test-00000.npz, row 0; all files of a split "
        "are read as its parts: remove those that do not belong"
    )


def test_what_is_no_array_or_of_another_type_is_named_in_every_form(tmp_path: Path) -> None:
    ids, pooled = ["a", "b"], np.ones((2, 3), np.float32)

    def refused() -> str:
        with pytest.raises(UserError) as error:
            FeatureFiles(tmp_path)
        return str(error.value)

    with zipfile.ZipFile(tmp_path / "test.npz", "w") as archive:
        archive.writestr("ids.npy", "no array")
    assert "wanted an array `ids` (n,) of text, one for each row; it has none" in refused()
    np.savez(tmp_path / "test.npz", ids=ids, pooled=pooled)
    np.savez(tmp_path / "texts.npz", texts=["x", "x"], pooled=pooled)
    assert refused() == f"{tmp_path / 'texts.npz'}, row 1: the text 'x' appears twice"
    (tmp_path / "texts.npz").unlink()
    (tmp_path / "test.npz").unlink()

    half = torch.ones(2, dtype=torch.bfloat16)
    metadata = {"ids": json.dumps(ids)}
    save_file({"pooled": torch.from_numpy(pooled), "views": half}, tmp_path / "test.safetensors", metadata)
    assert "wanted an array `views` (2,) of whole numbers from 0; found float32" in refused()
    (tmp_path / "test.safetensors").unlink()

    pyarrow = pytest.importorskip("pyarrow", reason="pip install 'video-evalkit[parquet]'")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'video-evalkit[parquet]'")
    for values, kind in ((["1", "2"], "string"), ([1.0, 2.0], "double")):
        parquet.write_table(pyarrow.table({"ids": ids, "pooled": values}), tmp_path / "test.parquet")
        assert f"wanted a column `pooled` of lists of numbers; found {kind}" in refused()
    none = pyarrow.table(
        {"ids": pyarrow.array([], "string"), "pooled": pyarrow.array([], pyarrow.list_(pyarrow.float32()))}
    )
    parquet.write_table(none, tmp_path / "test.parquet")
    assert "test.parquet" in refused()
