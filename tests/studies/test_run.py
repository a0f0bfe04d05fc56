"""A study is run, killed and gone on with; what its cells cost stands beside what they are worth."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from evalkit.cli import main
from evalkit.results import run_folder, validate
from tests.forked import Forked
from tests.patience import wait_until

pytestmark = [pytest.mark.usefixtures("decoding_here"), pytest.mark.slow]

TASK = '''"""Left or right."""
from pathlib import Path
from evalkit.api import Example, Task
from evalkit.metrics import top1_top5
def task(root: Path = Path("films")) -> Task:
    """Left or right."""
    all = [Example(f"{i}", root / f"{i:02d}.mp4", i % 2) for i in range(12)]
    return Task(all[4:], top1_top5, train=all[:4], classes=("left", "right"), chance=50.0)
'''
STUDY = """# Two ways to train.
title: Masked or not
x: cost.training.saved_bytes
y: [top1]
words:
  adapt: task=./side.py adapter=contrastive adapter.epochs=1 adapter.batch_size=4 canary=false
  run: task=./side.py adapter=zero_shot canary=false
cells:
  - {name: all, adapt: ckpt=tiny, run: controls=false}
  - {name: half, adapt: ckpt=tiny adapter.mask_ratio=0.5, run: controls=false}
claims:
  - {text: masking saves memory, of: [all, half], metric: cost.training.saved_bytes, expect: ratio at least 1.2}
  - {text: masking loses nothing, of: [half, all], metric: top1, expect: difference at least -1}
"""


@pytest.fixture
def own(tmp_path: Path, films: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study of a task of one's own, which is the current one."""
    shutil.copytree(films, tmp_path / "films")
    shutil.copytree(tiny, tmp_path / "tiny")
    (tmp_path / "side.py").write_text(TASK)
    (tmp_path / "two.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_study_that_is_killed_goes_on_where_it_was(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = own / "results" / "study-two"
    words = ("study", "two.yaml", "workers=1", "threads=1", "device=cpu")
    killed = Forked(*words, cwd=own)
    wait_until(lambda: len(list(folder.glob("adapted/[!.]*"))) == 1, 120)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (first,) = folder.glob("adapted/[!.]*")
    stamp = (first / "model.safetensors").stat().st_mtime_ns

    assert main([*words]) == 0
    printed = capsys.readouterr().out
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    content = json.loads((folder / "study.json").read_text())
    costs = [cell["cost.training.saved_bytes"]["value"] for cell in content["cells"]]
    assert costs[0] > 1.2 * costs[1]
    assert "holds: masking saves memory (all / half: cost.training.saved_bytes " in printed
    assert [claim["verdict"] for claim in content["claims"]][0] == "holds"
    runs = [run for cell in content["cells"] for run in cell["runs"]]
    assert len(runs) == 2 and all(validate.validate(Path(run), [Path("side.py")]) == [] for run in runs)
    assert all("training" not in run_folder.load(Path(run))["cost"] for run in runs)
    assert {"table.md", "study.html", "plot.png"} <= {file.name for file in folder.iterdir()}

    before = (folder / "study.json").read_bytes()
    assert main([*words]) == 0
    assert (folder / "study.json").read_bytes() == before and len(list(folder.glob("runs/*/*/*/result.json"))) == 2
    assert len(list(folder.glob("adapted/[!.]*"))) == 2

    (own / "two.yaml").write_text(STUDY.replace("y: [top1]", "y: [top_1]"))
    capsys.readouterr()
    assert main([*words]) == 1  # a metric that no cell has
    assert "all: no top_1 in its records. Did you mean 'top1'?" in capsys.readouterr().out
