import csv as csv_files
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import evalkit
from evalkit.callback import Evaluate
from evalkit.errors import CanaryError, UserError
from evalkit.results import run_folder, validate
from evalkit.results.compare import compare
from evalkit.weights import checkpoint
from tests.forked import Forked, ranks

ROOT = Path(__file__).parents[1]


class Classifier(lightning.LightningModule):
    """Trains an encoder, and notes the random numbers that it meets on the way."""

    def __init__(self, ckpt: Path) -> None:
        super().__init__()
        encoder: Any = evalkit.load_encoder(ckpt)
        self.backbone = encoder.train().requires_grad_(True)
        self.head = nn.Linear(encoder.dim, 2)
        self.met: list[Any] = []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        self.met.append((random.random(), np.random.random(), torch.rand(1).item(), torch.get_num_threads()))
        assert self.backbone.training and all(one.requires_grad for one in self.backbone.parameters())
        return nn.functional.cross_entropy(self.head(self.backbone(batch[0]).pooled), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


Train = Callable[..., tuple[Classifier, list[str], Path]]


@pytest.fixture
def csv(tmp_path: Path, films: Path) -> Path:
    rows = ["path,label,split"]
    rows += [f"{film},{i % 2},{'test' if i < 4 else 'train'}" for i, film in enumerate(sorted(films.glob("*.mp4")))]
    (tmp_path / "videos.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "videos.csv"


@pytest.fixture
def train(tmp_path: Path, tiny: Path) -> Train:
    """Trains for two epochs of three steps with these callbacks: the module, the logged lines, and the folder."""

    def do(*callbacks: lightning.Callback) -> tuple[Classifier, list[str], Path]:
        lightning.seed_everything(3, verbose=False)
        module = Classifier(tiny)
        data = DataLoader(TensorDataset(torch.randn(6, 4, 3, 32, 32), torch.randint(2, (6,))), 2, shuffle=True)
        settings: Any = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
        kept = any(isinstance(one, ModelCheckpoint) for one in callbacks)
        logger = CSVLogger(tmp_path / "logs")
        trainer = lightning.Trainer(
            max_epochs=2,
            logger=logger,
            callbacks=[*callbacks],
            enable_checkpointing=kept,
            default_root_dir=tmp_path,
            log_every_n_steps=1,
            **settings,
        )
        trainer.fit(module, data)
        logged = Path(logger.log_dir) / "metrics.csv"
        return module, logged.read_text().splitlines() if logged.exists() else [], tmp_path / "evalkit"

    return do


# Lightning's own use of torch, and its advice on workers.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("decoding_here"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


def evaluate(csv: Path, unit: Literal["epoch", "step"] = "epoch", every: int = 1) -> Evaluate:
    tasks = [f"folder data.root={csv} adapter=knn adapter.k=3"]
    return Evaluate(tasks, lambda module: module.backbone, every, unit, workers=1, canary=False)


def test_scores_are_logged_before_training_and_after_each_epoch(train: Train, csv: Path) -> None:
    callback = evaluate(csv)
    best = ModelCheckpoint(monitor="evalkit/folder/top1", mode="max")
    module, lines, out = train(callback, best)
    logged = list(csv_files.DictReader(lines))
    ends = [f"{metric}_{end}" for metric in ("top1", "top5") for end in ("low", "high")]
    names = ("top1", "top5", *ends, "n_failed", "wall_s")
    assert logged[0].keys() == {*(f"evalkit/folder/{name}" for name in names), "step"}
    assert [line["step"] for line in logged] == ["0", "3", "6"]
    assert callback.words.get("log") is None and not (out.parent / "logs/csv").exists()
    runs = sorted(out.rglob("result.json"))
    assert len(runs) == 3 and validate.validate(out) == []
    records = [run_folder.load(run) for run in runs]
    assert sorted(str(record["scores"][0]["value"]) for record in records) == sorted(
        line["evalkit/folder/top1"] for line in logged
    )
    assert len({record["encoder"]["sha256"] for record in records}) == 3
    assert checkpoint.sha256(module.backbone) in {record["encoder"]["sha256"] for record in records}
    assert best.best_model_score is not None
    assert compare(*runs[:2]).n == 4


def test_features_are_scored_without_labels_too(train: Train, csv: Path) -> None:
    line = f"folder data.root={csv} adapter=representation clip.crops=3"
    callback = Evaluate([line], lambda module: module.backbone, 2, "epoch", workers=1, canary=False)
    _, (head, *lines), _ = train(callback)
    names = [f"evalkit/folder/{metric}" for metric in ("alignment", "lidar", "rankme", "uniformity")]
    columns = head.split(",")
    assert set(names) < set(columns) and len(lines) == 2
    before, after = (dict(zip(columns, line.split(","), strict=True)) for line in lines)
    assert 1 < float(before["evalkit/folder/rankme"]) <= 4  # of four videos
    assert [before[name] for name in names] != [after[name] for name in names]


def test_training_goes_on_as_it_would_have(train: Train, csv: Path) -> None:
    alone, _, _ = train()
    scored, _, _ = train(evaluate(csv))
    assert scored.met == alone.met
    for one, other in zip(scored.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)
    assert scored.backbone.training


def test_steps_are_counted_too(train: Train, csv: Path) -> None:
    _, lines, _ = train(evaluate(csv, "step", every=4))
    assert [line["step"] for line in csv_files.DictReader(lines)] == ["0", "4"]


def in_two_processes(folder: Path, *words: Path) -> list[tuple[int | None, str]]:
    """The exit status and stderr of each of two processes of tests/two_processes.py."""
    with ranks(2, ROOT / "tests" / "two_processes.py", *words, cwd=folder) as started:
        printed = [process.communicate()[1] for process in started]
        return [(process.returncode, err) for process, err in zip(started, printed, strict=True)]


def test_of_two_processes_one_scores_and_both_train_on_as_before(tmp_path: Path, csv: Path, tiny: Path) -> None:
    ended = in_two_processes(tmp_path, tiny, csv)
    assert [status for status, _ in ended] == [0, 0], ended
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first["runs"], second["runs"]) == (["folder"] * 2, [])
    assert first["same"] and second["same"] and first["training"] and second["training"]
    (logged,) = (tmp_path / "scored").glob("*/metrics.csv")
    assert [line["step"] for line in csv_files.DictReader(logged.read_text().splitlines())] == ["0", "2"]
    assert first["metrics"] == second["metrics"] and first["best"] == second["best"] is not None
    assert list(first["metrics"]) == ["evalkit/folder/top1", "evalkit/folder/top5"]


def test_what_is_wrong_ends_both_processes(tmp_path: Path, tiny: Path) -> None:
    ended = in_two_processes(tmp_path, tiny, tmp_path / "nowhere.csv")
    assert all(status != 0 for status, _ in ended)
    assert "nowhere.csv" in ended[0][1]


@pytest.mark.parametrize(
    ("callback", "told"),
    [
        (lambda: Evaluate("folder", lambda module: module), "wanted a list of at least one task"),
        (lambda: Evaluate(["folder"], lambda module: module, every=0), "every=0"),
        (lambda: Evaluate(["foldr"], lambda module: module.backbone), "no task named 'foldr'"),
        (lambda: Evaluate(["folder lr"], lambda module: module.backbone), "unknown key 'lr'"),
        (lambda: Evaluate(["folder"], lambda module: module.head), "ckpt is a Linear; wanted a torch module with"),
    ],
)
def test_a_mistake_is_told_before_training(train: Train, callback: Any, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        train(callback())


@pytest.mark.parametrize(
    ("error", "told", "steps"),
    [
        (
            CanaryError("range: too large"),
            "step 3, folder: evaluated though the canary failed: range: too",
            ["0", "3", "6"],
        ),
        (UserError("the disk is full"), "step 3, folder: not evaluated: the disk is full", ["0", "6"]),
    ],
)
def test_what_fails_once_training_is_under_way_is_a_warning(
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: UserError,
    told: str,
    steps: list[str],
) -> None:
    record = {"task": {"name": "folder"}, "scores": [], "data": {"n_failed": 0}, "cost": {"wall_s": 1.0}}
    runs: list[dict[str, Any]] = []

    def run(task: str, encoder: nn.Module, **words: Any) -> Any:
        runs.append(words)
        if len(runs) == 2:
            raise error
        return SimpleNamespace(record=record, scores={"top1": 50.0})

    monkeypatch.setattr("evalkit.launch.python.run", run)
    _, lines, _ = train(Evaluate(["folder"], lambda module: module.backbone))
    assert [line["step"] for line in csv_files.DictReader(lines) if line["evalkit/folder/top1"]] == steps
    assert told in caplog.text
    assert [words.get("canary") for words in runs] == [None, None, *[False] * (len(steps) - 2), None]
    runs.clear()
    runs.append({})  # so that the run before training fails
    with pytest.raises(type(error)):
        train(Evaluate(["folder"], lambda module: module.backbone))


# --- evalkit.run ------------------------------------------------------------------------------------------------------


def test_a_run_from_python_is_that_of_the_command_line(
    csv: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words: dict[str, Any] = {
        "data": {"root": csv},
        "adapter": "knn",
        "adapter.k": 3,
        "out": tmp_path / "out",
        "workers": 1,
    }
    found = evalkit.run("folder", tiny, quiet=True, **words)
    assert capsys.readouterr() == ("", "")
    assert found.record == run_folder.load(found.folder) and validate.validate(found.folder) == []
    assert list(found.scores) == ["top1", "top5"]
    module: Any = evalkit.load_encoder(tiny)
    module.train()
    line = f"folder data.root='{words.pop('data')['root']}' encoder.name=step-3"
    again = evalkit.run(line, module, **words)
    assert capsys.readouterr().out.endswith(f"{again.folder / 'result.json'}\n")
    assert again.record["scores"] == found.record["scores"]
    assert again.record["encoder"]["sha256"] == found.record["encoder"]["sha256"]
    assert again.record["encoder"]["ckpt"] == "ViViT in memory" and again.record["encoder"]["name"] == "step-3"
    assert module.training


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"adaptr": "knn"}, "unknown key 'adaptr'"),
        ({"encoder": {"heads": 3}}, "encoder.heads has no effect on a module"),
    ],
)
def test_wrong_words_from_python_are_told(tiny: Path, words: dict[str, Any], told: str) -> None:
    module: Any = evalkit.load_encoder(tiny)
    with pytest.raises(UserError, match=re.escape(told)):
        evalkit.run("folder", module, **words)


def test_the_training_of_the_documents_runs_to_the_letter(tmp_path: Path, csv: Path) -> None:
    assert csv == tmp_path / "videos.csv"  # as the document calls it
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 30
    (tmp_path / "train.py").write_text(code)
    ended = Forked("train.py", cwd=tmp_path)
    _, err = ended.communicate()
    assert ended.returncode == 0, err
    (logged,) = tmp_path.glob("logs/*/*/metrics.csv")
    assert {"evalkit/folder/top1", "evalkit/folder/top1_low"} <= {*logged.read_text().split("\n")[0].split(",")}
