"""The canary at work: alone, and before a run."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from evalkit.cli import main
from evalkit.config.parse import resolve
from evalkit.features.extract import FeatureExtractor
from evalkit.features.sources import Source
from evalkit.pipeline import preflight
from evalkit.pipeline.setup import prepare
from evalkit.results import run_folder, validate

pytestmark = pytest.mark.usefixtures("decoding_here")

FAULTS = '''
import torch
from torch import nn

from evalkit.encoders import load_encoder


class Wrapped(nn.Module):
    """The demo encoder with something wrong between its clip and its input."""

    def __init__(self, change):
        super().__init__()
        self.inner = load_encoder("demo")
        self.clip, self.dim, self.change = self.inner.clip, self.inner.dim, change

    def forward(self, video):
        return self.inner(self.change(video))


def right():
    return Wrapped(lambda video: video)


def swapped():
    return Wrapped(lambda video: video.transpose(1, 2))


def bgr():
    return Wrapped(lambda video: video.flip(2))


def bytes_():
    return Wrapped(lambda video: ((video * 0.25 + 0.5) * 255 - 0.5) / 0.25)


def imagenet():
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return Wrapped(lambda video: (video * 0.25 + 0.5 - mean) / std)


def constant():
    return Wrapped(lambda video: video * 0)


def random():
    encoder = load_encoder("demo")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in encoder.blocks[::2]:
            for module in block.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02)
    return encoder


class Training(nn.Module):
    """Drops out, whatever mode it is told."""

    def __init__(self):
        super().__init__()
        self.inner = load_encoder("demo")
        self.clip, self.dim = self.inner.clip, self.inner.dim

    def forward(self, video):
        return self.inner(nn.functional.dropout(video, 0.1, training=True))
'''


@pytest.fixture
def faults(module_here: Callable[[str], str]) -> str:
    return module_here(FAULTS)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("swapped", "layout"),
        ("bgr", "reference"),
        ("bytes_", "reference"),
        ("imagenet", "reference"),
        ("constant", "constant"),
        ("random", "weights"),
        ("Training", "determinism"),
    ],
)
def test_the_canary_alone_names_each_fault_and_fails(
    faults: str, fault: str, check: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["canary", f"ckpt={faults}:{fault}"]) == 1
    failed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if " failed " in line]
    assert check in failed


@pytest.mark.parametrize("ckpt", ["demo", "own"])
def test_nothing_fails_where_nothing_is_wrong(faults: str, ckpt: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["canary", f"ckpt={faults}:right" if ckpt == "own" else "ckpt=demo"]) == 0
    told = capsys.readouterr().out
    assert " failed " not in told and " warning " not in told
    assert "reference" in told and "frame order" in told


def test_a_run_stops_before_it_encodes_and_says_how_to_go_on(
    faults: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "task=kinetics400", "mini=true", f"ckpt={faults}:bgr", f"out={tmp_path / 'out'}"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "evalkit: the canary stops this run: reference: " in told and "(canary=false continues anyway)" in told
    assert not list((tmp_path / "out").rglob("result.json"))


def test_what_the_canary_found_is_in_the_result_and_known_the_next_time(
    tiny: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{path},{i % 2},{'train' if i < 8 else 'test'}" for i, path in enumerate(sorted(films.glob("*.mp4")))]
    (tmp_path / "labels.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    words = [f"data.root={tmp_path / 'labels.csv'}", f"ckpt={tiny}", f"out={tmp_path / 'out'}"]
    assert main(["run", "task=folder", *words, "adapter.epochs=1", "adapter.head=linear"]) == 0
    (run,) = [path.parent for path in (tmp_path / "out").rglob("result.json")]
    assert validate.validate(run) == []
    findings = run_folder.load(run)["encoder"]["canary"]
    found = {one["check"]: one["outcome"] for one in findings}
    assert found["layout"] == found["determinism"] == "ok" and found["weights"] == "warning"
    # The same weights and videos are not examined again, nor decoded for it; clips of another length are.
    monkeypatch.setattr("evalkit.canary.checks.CHECKS", ())
    sample = FeatureExtractor.sample
    sampled: list[list[Tensor]] = []

    def counted(self: FeatureExtractor, wanted: Sequence[Source], count: int) -> list[Tensor]:
        sampled.append(sample(self, wanted, count))
        return sampled[-1]

    monkeypatch.setattr(FeatureExtractor, "sample", counted)
    for more, known in ([], True), (["clip.frames=2"], False), (["cache=off"], False):
        out = tmp_path / f"again{len(list(tmp_path.iterdir()))}"
        assert main(["run", "task=folder", *words[:-1], f"out={out}", "adapter=knn", "adapter.k=1", *more]) == 0
        (again,) = [path.parent for path in out.rglob("result.json")]
        assert run_folder.load(again)["encoder"]["canary"] == (findings if known else [])
        assert bool(sampled) != known
        sampled.clear()


def test_what_the_canary_found_of_one_encoder_is_not_another_s_though_no_video_is_there(
    tiny: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    (weights,) = other.glob("*.safetensors")
    save_file({name: 2 * value for name, value in load_file(weights).items()}, weights)
    rows = [f"{name}.mp4,{name[0]},{split}" for split in ("train", "test") for name in ("a" + split, "b" + split)]
    (tmp_path / "labels.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")

    def identity(ckpt: Path) -> str:
        words = ["task=folder", f"data.root={tmp_path / 'labels.csv'}", f"ckpt={ckpt}", "adapter=knn"]
        with prepare(resolve("run", words)) as experiment:
            assert experiment.reader.cache
            sampled = preflight.sample_sources(experiment.extractor, experiment.task)
            return preflight._identity(experiment.reader.cache, sampled, ckpt)

    assert identity(tiny) == identity(tiny) != identity(other)


def test_the_canary_takes_clips_of_a_task_and_refuses_keys_that_do_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["canary", "ckpt=demo", "task=egoschema", "mini=true"]) == 0
    for word, told in (("adapter.lr=1", "unknown key 'adapter.lr'"), ("mini=true", "give the task whose miniature")):
        assert main(["canary", "ckpt=demo", word]) == 2
        assert told in capsys.readouterr().err
