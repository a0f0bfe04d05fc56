"""An encoder is tuned and scored by one command; what was trained is saved small and comes back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from evalkit import encoders
from evalkit.api import Adapter, Batch, Example, Task, Views
from evalkit.errors import UserError
from evalkit.features.batches import InMemoryFeatures
from evalkit.features.sources import sources
from evalkit.metrics import ava_map
from evalkit.metrics.classification import accuracy
from evalkit.pipeline.training import examples
from evalkit.results import run_folder, validate
from evalkit.video.clips import Decoded, read_clip
from evalkit.weights import checkpoint, trained_adapter
from tests.given import evalkit, make_adapter, mistake

pytestmark = pytest.mark.usefixtures("decoding_here")

TASK = Task(test=(), score=accuracy, classes=("left", "right"))
SETTINGS = ["adapter.epochs=2", "adapter.batch_size=4", "adapter.lr=3e-3"]
SEVERAL = Task(test=[Example("1", Path("1"), (0, 1)), Example("2", Path("2"), ())], score=accuracy, classes=("a", "b"))
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
BOXED = Task(
    train=[Example(f"{i}/{side}", Path(str(i)), (i, 1), box=(LEFT, RIGHT)[side]) for i in (0, 1) for side in (0, 1)],
    test=[
        Example("2", Path("2"), [[*LEFT, "a"]], boxes=((*LEFT, 0.9), (*RIGHT, 0.8), (0.2, 0.2, 0.8, 0.9, 0.3))),
        Example("3", Path("3"), [[*RIGHT, "b"]], boxes=((*RIGHT, 0.5),)),
        Example("4", Path("4"), [[*RIGHT, "b"]], boxes=()),
    ],
    score=ava_map,
    classes=("a", "b", ""),
)


def make(tiny: Path, task: Task = TASK, **settings: Any) -> Any:
    torch.manual_seed(0)
    return make_adapter("finetune", encoders.load_encoder(tiny), task, **settings)


def batch(targets: list[Any], views: int = 1) -> Batch:
    draw = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (len(targets), views, 4, 3, 32, 32), generator=draw, dtype=torch.uint8)
    return Batch([Example(str(i), Path(str(i)), target) for i, target in enumerate(targets)], pixels)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, films: Path, tiny: Path) -> list[str]:
    """The films by the way that their shape moves, for the tiny encoder."""
    rows = [
        f"{film},{('left', 'right')[i % 2]},{'train' if i > 3 else 'test'}"
        for i, film in enumerate(sorted(films.glob("*.mp4")))
    ]
    file = tmp_path_factory.mktemp("ways") / "ways.csv"
    file.write_text("\n".join(["path,label,split", *rows]))
    return ["task=folder", f"data.root={file}", f"ckpt={tiny}", "adapter=finetune", "workers=1"]


def test_the_papers_protocol_tunes_with_its_augmentation_and_the_result_says_so(
    tmp_path: Path, films: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ways.py").write_text(
        "from pathlib import Path\n"
        "from evalkit.datasets import protocols\n"
        "from evalkit.datasets.files import LabeledSplits\n"
        "from evalkit.api import Example, Task\n"
        "def task() -> Task:\n"
        f"    films = sorted(Path({str(films)!r}).glob('*.mp4'))\n"
        "    every = [Example(film.stem, film, i % 2) for i, film in enumerate(films)]\n"
        "    found = LabeledSplits(every[4:], every[:4], ('left', 'right'))\n"
        "    return protocols.classification('kinetics400', found, 'videoglue_finetune', False)\n"
    )
    words = [f"task={tmp_path}/ways.py", f"ckpt={tiny}", "clip.size=32", "clip.frames=4", "workers=1"]
    words += ["adapter.epochs=1", "adapter.batch_size=4", f"out={tmp_path / 'out'}"]
    assert mistake(capsys, "run", *words).endswith(
        "protocol videoglue_finetune has another adapter: add adapter=finetune"
    )
    run = evalkit("run", *words, "adapter=finetune").parent
    assert validate.validate(run) == []
    protocol = run_folder.load(run)["task"]["protocol"]
    assert protocol["name"] == "videoglue_finetune" and protocol["augment"]["randaugment"] == [9.0, 0.5]
    assert protocol["views"]["resize"] == "crop" and protocol["views"]["share"] == 0.875
    assert {"mixup": 0.8, "cutmix": 1.0, "dropout": 0.5}.items() <= protocol["settings"].items()


def probabilities(run: Path) -> list[list[float]]:
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    return [row["detail"]["probabilities"] for row in rows]


def test_it_fulfils_the_contract(tiny: Path) -> None:
    assert isinstance(make(tiny), Adapter)


@pytest.mark.parametrize(("tune", "encoder_weights"), [("adapters", 0), ("lora", 0), ("all", 29)])
def test_what_is_trained_wants_a_gradient_and_is_all_that_is_learned(
    tiny: Path, tune: str, encoder_weights: int
) -> None:
    tuned = make(tiny, tune=tune, width=5, rank=3)
    tuned.training_step(batch([0, 1, 1]), 0).backward()
    learned = tuned.adapter_state()
    assert learned.keys() == {name for name, value in tuned.named_parameters() if value.grad is not None}
    assert sum(name.startswith("encoder.") for name in learned) == encoder_weights
    sides = sum(value.numel() for name, value in learned.items() if name.startswith("sides."))
    # Two blocks: a bottleneck of 24 x 5 twice, with biases and scale; or rank 3 beside 24-72, 24-24, 24-48 and 48-24.
    assert sides == {"adapters": 2 * (2 * 24 * 5 + 5 + 24 + 1), "lora": 2 * 3 * (96 + 48 + 72 + 72), "all": 0}[tune]


def test_the_loss_is_the_cross_entropy_of_every_view(tiny: Path) -> None:
    tuned = make(tiny, tune="adapters", label_smoothing=0.2).eval()
    data = batch([0, 1, 1], views=2)
    logits = tuned(tuned.encoder.clip.normalize(data.features.flatten(0, 1)))
    wanted = F.cross_entropy(logits, torch.tensor([0, 0, 1, 1, 1, 1]), label_smoothing=0.2)
    assert tuned.training_step(data, 0).item() == pytest.approx(wanted.item(), abs=1e-6)


def test_mixed_videos_are_trained_towards_mixed_targets(tiny: Path) -> None:
    tuned = make(tiny, tune="adapters", mixup=0.8).eval()
    data = batch([0, 1, 1, 1])
    share = float(np.random.default_rng([tuned.seed, 0]).beta(0.8, 0.8))
    video = tuned.encoder.clip.normalize(data.features[:, 0])
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    logits = tuned(share * video + (1 - share) * video.flip(0))
    wanted = F.cross_entropy(logits, share * target + (1 - share) * target.flip(0))
    assert tuned.training_step(data, 0).item() == pytest.approx(wanted.item(), abs=1e-6)
    wanted.backward()  # type: ignore[no-untyped-call]
    assert tuned.sides[0].up.weight.grad.abs().max() > 0


def test_several_classes_have_a_sigmoid_each(tiny: Path) -> None:
    tuned = make(tiny, SEVERAL, tune="adapters").eval()
    data = batch([(0, 1), ()])
    logits = tuned(tuned.encoder.clip.normalize(data.features.flatten(0, 1)))
    wanted = F.binary_cross_entropy_with_logits(logits, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    assert tuned.training_step(data, 0).item() == pytest.approx(wanted.item(), abs=1e-6)
    with torch.no_grad():
        tokens = tuned.encoder(tuned.encoder.clip.normalize(data.features.flatten(0, 1))).tokens[:, None]
        found = tuned.predict(data.examples, tokens)
    assert torch.allclose(torch.tensor([one.value for one in found]), logits.sigmoid(), atol=1e-6)
    with pytest.raises(UserError, match=r"adapter.label_smoothing is of the softmax; this task has several classes"):
        make(tiny, SEVERAL, label_smoothing=0.1)


def test_a_box_asks_what_is_in_it_through_the_encoder(tiny: Path) -> None:
    tuned = make(tiny, BOXED, tune="adapters").eval()
    data = replace(batch([example.target for example in BOXED.train], views=2), examples=BOXED.train)
    within = torch.tensor([LEFT, LEFT, RIGHT, RIGHT] * 2)
    logits = tuned(tuned.encoder.clip.normalize(data.features.flatten(0, 1)), within)
    assert not torch.allclose(logits, tuned(tuned.encoder.clip.normalize(data.features.flatten(0, 1))), atol=1e-3)
    wanted = torch.tensor([[1.0, 1.0, 0.0]] * 4 + [[0.0, 1.0, 0.0]] * 4)
    loss = tuned.training_step(data, 0)
    assert loss.item() == pytest.approx(F.binary_cross_entropy_with_logits(logits, wanted).item(), abs=1e-6)
    loss.backward()
    assert tuned.sides[0].up.weight.grad.abs().max() > 0
    torch.manual_seed(0)
    probe: Any = make_adapter("probe", encoders.load_encoder(tiny), BOXED, head="box")
    state = probe.adapter_state()
    assert all(torch.equal(value, state[name]) for name, value in tuned.head.state_dict().items())


@pytest.mark.parametrize("tune", ["all", "adapters"])
def test_the_boxes_of_a_key_frame_share_one_encode(tiny: Path, tune: str) -> None:
    tuned = make(tiny, BOXED, tune=tune).eval()
    pixels = batch([0, 1, 0]).features
    encoded: list[int] = []

    def keep(video: Tensor) -> Tensor:
        encoded.append(len(video))
        tokens: Tensor = tuned.encoder(tuned.encoder.clip.normalize(video)).tokens
        return tokens

    asked = sources(BOXED.test)
    data = examples.Examples(BOXED.test, InMemoryFeatures(pixels), {source: row for row, source in enumerate(asked)})
    (values,) = examples.predict(tuned, data, keep)
    assert encoded == [3] and [len(value) for value in values] == [6, 2, 0]
    with torch.no_grad():
        for example, value, video in zip(BOXED.test, values, pixels[:, 0], strict=True):
            for *corners, score in example.boxes or ():
                logits = tuned(tuned.encoder.clip.normalize(video[None]), torch.tensor([corners]))[0]
                found = {name: likely for *box, name, likely in value if box == corners}
                assert [found["a"], found["b"]] == pytest.approx((logits.sigmoid()[:2] * score).tolist(), abs=1e-6)


def test_boxes_are_asked_about_where_the_test_is_of_key_frames_or_the_user_says_so(tiny: Path) -> None:
    alone = Task(test=BOXED.train, score=accuracy, classes=("a", "b", "c"))  # of a box each
    assert not make(tiny, alone).head.shape.boxed and make(tiny, alone, head="box").head.shape.boxed
    with pytest.raises(UserError, match=r"^example '2' asks about each box .* or adapter=finetune$"):
        make(tiny, BOXED, head="attentive")
    with pytest.raises(
        UserError, match=r"^example '1' has no box, which adapter.head=box asks with: use another head$"
    ):
        make(tiny, SEVERAL, head="box")
    undetected = replace(BOXED, test=[replace(example, boxes=None) for example in BOXED.test])
    with pytest.raises(UserError, match=r"^example '2' has no box.* data.detections=FILE, or say data.boxes=truth$"):
        make(tiny, undetected)
    with pytest.raises(UserError, match=r"^example '2' of train is a key frame: wanted an example per box"):
        make(tiny, replace(BOXED, train=BOXED.test))
    for key in ("mixup", "cutmix"):
        with pytest.raises(
            UserError, match=rf"^adapter.{key}=0.8 mixes videos whose boxes lie elsewhere: set it to 0$"
        ):
            make(tiny, BOXED, **{key: 0.8})


def test_its_first_head_is_the_probes(tiny: Path) -> None:
    tuned = make(tiny, tune="adapters", heads=3)
    torch.manual_seed(0)
    probe: Any = make_adapter("probe", encoders.load_encoder(tiny), TASK, heads=3)
    state = probe.adapter_state()
    assert all(torch.equal(value, state[name]) for name, value in tuned.head.state_dict().items())


@pytest.fixture(scope="module", params=["all", "adapters", "lora"])
def tuned(request: pytest.FixtureRequest, words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the tiny encoder was tuned into."""
    settings = [f"adapter.tune={request.param}", *SETTINGS]
    return evalkit("adapt", *words, *settings, f"out={tmp_path_factory.mktemp('tuned') / 'out'}")


def weights_of(tuned: Path) -> dict[str, Tensor]:
    return load_file(tuned / "adapters" / "finetune" / "adapter.safetensors")


def test_what_was_trained_is_saved_beside_a_pointer_to_the_encoder(tuned: Path, tiny: Path) -> None:
    assert sorted(str(file.relative_to(tuned)) for file in tuned.rglob("*") if file.is_file()) == [
        "adapters/finetune/adapter.json",
        "adapters/finetune/adapter.safetensors",
        "encoder.json",
    ]
    encoder: Any = encoders.load_encoder(tuned)
    assert checkpoint.sha256(encoder) == checkpoint.sha256(encoders.load_encoder(tiny))  # type: ignore[arg-type]
    first = make(tiny, **trained_adapter.adapter_settings(tuned / "adapters" / "finetune")).adapter_state()
    changed = {name for name, value in weights_of(tuned).items() if not torch.equal(value, first[name].half())}
    assert all(name in changed for name in first if name.endswith((".up.weight", ".1.weight", "mlp.0.weight")))


def test_a_run_restores_it_and_its_answers_come_from_the_tuned_encoder(
    tuned: Path, words: list[str], tiny: Path, films: Path, tmp_path: Path
) -> None:
    run = evalkit("run", *words, f"adapter.from={tuned}", f"out={tmp_path}").parent
    record = run_folder.load(run)
    assert record["status"] == "complete" and record["selection"] is None and record["cost"]["cache_hits"] == 0
    encoder: Any = encoders.load_encoder(tiny)
    assert record["encoder"]["parameters"] == sum(p.numel() for p in encoder.parameters())
    assert record["adapter"]["trainable_parameters"] == sum(value.numel() for value in weights_of(tuned).values())
    assert record["adapter"]["trainable_flops"] > 0

    adapter = make(tiny, **trained_adapter.adapter_settings(tuned / "adapters" / "finetune"))
    parameters, weights = dict(adapter.named_parameters()), weights_of(tuned)
    answers = probabilities(run)
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
        for film in sorted(films.glob("*.mp4"))[:4]:
            clip = read_clip(film, None, Views("uniform"), 4, 32)
            assert isinstance(clip, Decoded)
            wanted = adapter.eval()(adapter.encoder.clip.normalize(clip.pixels)).softmax(-1)[0]
            found = torch.tensor(answers.pop(0))
            assert torch.allclose(found, wanted.sort(descending=True).values, atol=1e-3)  # kept tokens are float16


def test_one_command_tunes_and_scores(words: list[str], tmp_path: Path) -> None:
    settings = ["adapter.tune=adapters", *SETTINGS]
    run = evalkit("run", *words, *settings, f"out={tmp_path / 'runs'}").parent
    record = run_folder.load(run)
    assert record["selection"]["chosen"]["epochs"] == 2 and record["adapter"]["settings"]["from"] == ""
    out = evalkit("adapt", *words, *settings, f"out={tmp_path / 'tuned'}")
    again = evalkit("run", *words, f"adapter.from={out}", f"out={tmp_path / 'again'}").parent
    difference = torch.tensor(probabilities(run)) - torch.tensor(probabilities(again))
    assert difference.abs().max() < 2e-3  # what is saved has half precision


def test_what_was_trained_for_another_encoder_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = evalkit("adapt", *words, "adapter.epochs=1", "adapter.tune=adapters", f"out={tmp_path / 'tuned'}")
    other = [word for word in words if not word.startswith("ckpt=")]
    told = mistake(capsys, "run", *other, "ckpt=demo", f"adapter.from={out}", f"out={tmp_path / 'runs'}")
    assert told.startswith(f"{out / 'adapters' / 'finetune'} was trained with encoder ")
    told = mistake(capsys, "run", *words, f"adapter.from={out}", "adapter.lr=1", f"out={tmp_path / 'runs'}")
    assert told.startswith("adapter.lr has no effect: the adapter comes trained from ")


@pytest.mark.parametrize(
    ("task", "settings", "told"),
    [
        (Task(test=(), score=accuracy), {}, "needs a task with classes"),
        (TASK, {"width": 0}, "adapter.width=0: wanted at least 1"),
        (TASK, {"rank": -1}, "adapter.rank=-1: wanted at least 1"),
        (TASK, {"mixup": -0.1}, "adapter.mixup=-0.1: wanted 0 or the alpha of a beta distribution"),
        (TASK, {"heads": 7}, "adapter.heads=7 does not divide the encoder's width 24"),
    ],
)
def test_settings_that_fit_nothing_are_refused(tiny: Path, task: Task, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        make(tiny, task, **settings)
