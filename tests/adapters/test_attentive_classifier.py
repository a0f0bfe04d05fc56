"""V-JEPA 2's attentive classifier is its authors', in what it gives, how it is trained and which files it reads."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from evalkit import plugins
from evalkit.api import Adapter, Augment, Batch, Clip, EncoderOutput, Example, FeatureSpec, Task, Views
from evalkit.cli import main
from evalkit.errors import UserError
from evalkit.features.batches import InMemoryFeatures
from evalkit.features.feature_cache import FeatureCache
from evalkit.features.key import FeatureKey, Identity
from evalkit.features.sources import Source
from evalkit.features.store import Store
from evalkit.metrics.classification import top1_top5
from evalkit.pipeline.training.examples import Examples
from evalkit.pipeline.training.trainer import TrainSpec, fit
from evalkit.video.augment import augmented_views
from evalkit.video.clips import Decoded, read_clip
from evalkit.video.sampling import frame_indices
from evalkit.weights import trained_adapter
from tests.given import FIXTURES, make_adapter, make_grid

pytestmark = pytest.mark.usefixtures("decoding_here")

FIXTURE = FIXTURES / "vjepa2"
TASK = Task(test=(), score=top1_top5, classes=("a", "b", "c"))
TOGETHER = Views("dense", clips=2, crops=3)


def make(task: Task = TASK, dim: int = 24, named_layers: int = 0, **settings: Any) -> Any:
    torch.manual_seed(0)
    encoder = SimpleNamespace(clip=Clip(), dim=dim, named_layers=named_layers)
    return make_adapter("attentive_classifier", encoder, task, **{"heads": 3, "blocks": 3, **settings})


def grid(points: list[dict[str, Any]], **settings: Any) -> Any:
    torch.manual_seed(0)
    shared = {"heads": 3, "blocks": 3, **settings}
    encoder = SimpleNamespace(clip=Clip(), dim=24)
    return make_grid("attentive_classifier", encoder, TASK, [{**shared, **point} for point in points])


def refusal(task: Task = TASK, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        make(task, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def alone(classifiers: Any) -> Any:
    """The one classifier as a plain module with its weights."""
    module = plugins.module_and_factory("adapter", "attentive_classifier")[0]
    weights = classifiers.adapter_state()
    blocks = 1 + len({name.split(".")[2] for name in weights if name.startswith("pooler.blocks.")})
    plain = module.AttentiveClassifier(weights["linear.weight"].shape[1], classifiers.classes, 3, blocks)
    plain.load_state_dict(weights)
    return plain


def data(n: int, prefix: str = "") -> Examples:
    """Tokens of one view that tell three classes apart."""
    draw = torch.Generator().manual_seed(len(prefix))
    targets = [i % 3 for i in range(n)]
    rows = [Example(f"{prefix}{i}", Path(f"{prefix}{i}"), target) for i, target in enumerate(targets)]
    features = torch.eye(24)[targets][:, None, None, None] + 0.3 * torch.randn(n, 1, 2, 4, 24, generator=draw)
    return Examples(rows, InMemoryFeatures(features), {Source(row.video, None): i for i, row in enumerate(rows)})


def fitted(classifiers: Any, score: Any = top1_top5) -> Any:
    return fit(classifiers, data(24), data(12, "val"), score, TrainSpec(torch.device("cpu")))


# --- how it is trained -----------------------------------------------------------------------------------------------

POINTS: list[dict[str, Any]] = [
    {"lr": 1e-3, "weight_decay": 0.8},
    {"lr": 3e-3, "weight_decay": 0.01},
    {"lr": 1e-4, "weight_decay": 0.1},
]


def last_weights(classifiers: Any) -> list[list[Tensor]]:
    """The weights of each point after the last epoch."""
    seen: list[list[Tensor]] = []

    def score(predictions: Any, targets: Any) -> dict[str, float]:
        seen.append([stack.detach().clone() for stack in classifiers.stacked])
        return {"same": 0.0}

    points = classifiers.points
    fitted(classifiers, score)
    return [[stack[k] for stack in seen[-1]] for k in range(points)]


def test_points_that_train_together_end_as_each_alone() -> None:
    together = last_weights(grid(POINTS, epochs=2, batch_size=8))
    for k, point in enumerate(POINTS):
        (one,) = last_weights(make(epochs=2, batch_size=8, **point))
        assert all(torch.equal(value, other) for value, other in zip(one, together[k], strict=True))
    assert not torch.equal(together[0][0], together[1][0])


def test_it_is_trained_by_adamw_with_decay_of_all_weights_and_a_cosine_without_warm_up() -> None:
    """Step by step as the authors' loop: one set of weights, the rate set before each step, nothing clipped."""
    steps = 5
    settings: dict[str, Any] = {"lr": 3e-3, "weight_decay": 0.8}
    plain = alone(make(**settings))
    optimizer = torch.optim.AdamW([{"params": list(plain.parameters())}], weight_decay=0.8)
    whole = data(24).whole()
    target = torch.tensor([example.target for example in whole.examples])
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = 3e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        F.cross_entropy(plain(whole.features.flatten(1, -2)), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    classifiers = make(epochs=steps, batch_size=24, **settings)
    (found,) = last_weights(classifiers)
    with torch.no_grad():
        expected = plain(whole.features.flatten(1, -2))
        logits = classifiers(whole.features)[0, :, 0]
    assert torch.allclose(logits, expected, atol=1e-4)
    keys = slice(24, 48)  # the keys' biases have no gradient, and Adam moves them by the sign of rounding errors
    for name, value, other in zip(classifiers.names, found, plain.parameters(), strict=True):
        if name.endswith(("qkv.bias", "kv.bias")):
            at = keys if "qkv" in name else slice(0, 24)
            value[at] = other.detach()[at]
        assert torch.allclose(value, other, atol=2e-5), name


def test_the_first_weights_are_the_authors() -> None:
    weights = make(dim=96, blocks=4).adapter_state()
    stds = {name: value.std().item() for name, value in weights.items() if value.ndim > 1 and "linear" not in name}
    for name, std in stds.items():
        depth = (
            {"blocks.0": 1, "blocks.1": 2, "blocks.2": 3, "cross_at": 3}[name.removeprefix("pooler.")[:8]]
            if (name.endswith(("attn.proj.weight", "mlp.fc2.weight")))
            else 0.5
        )
        assert std == pytest.approx(0.02 / math.sqrt(2 * depth), rel=0.2 if "query" in name else 0.05), name
    for name, value in weights.items():
        if value.ndim == 1 and "linear" not in name:
            assert torch.equal(value, torch.full_like(value, "norm" in name and "weight" in name)), name
    assert make(blocks=1).adapter_state()["pooler.cross_attention_block.mlp.fc2.weight"].std().item() == pytest.approx(
        0.02 / math.sqrt(2), rel=0.05
    )


def test_it_learns_and_leaves_the_point_that_is_best_on_val() -> None:
    classifiers = grid([{"lr": 1e-9}, {"lr": 3e-3}], epochs=4, batch_size=8)
    found = fitted(classifiers)
    assert found.chosen == 1 and found.curves[1].best == 100 > found.curves[0].best
    assert classifiers.points == 1 and classifiers.rates == [(3e-3, 0.01)]
    assert all(len(stack) == 1 for stack in classifiers.parameters())


def test_a_few_videos_at_a_time_give_the_gradients_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    module = plugins.module_and_factory("adapter", "attentive_classifier")[0]
    grads = []
    for at_once in (1, 24, 1 << 20):  # a video of eight tokens, three, all
        monkeypatch.setattr(module, "AT_ONCE", at_once)
        classifiers = grid(POINTS)
        classifiers.training_step(data(7).whole(), 0)["loss"].backward()
        grads.append([stack.grad for stack in classifiers.stacked])
    for some in grads[:2]:
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(some, grads[2], strict=True))


def test_several_classes_have_a_sigmoid_each() -> None:
    task = replace(TASK, train=[Example("1", Path("1"), (0, 2)), Example("2", Path("2"), ())])
    classifiers = make(replace(task, views=TOGETHER))
    features = torch.randn(2, 6, 2, 4, 24)
    logits = classifiers(features)[0]
    wanted = F.binary_cross_entropy_with_logits(logits, torch.tensor([[1.0, 0, 1], [0, 0, 0]])[:, None].expand(2, 3, 3))
    assert classifiers.training_step(Batch(task.train, features), 0)["loss"].item() == pytest.approx(wanted.item())
    with torch.no_grad():
        found = [one.value for one in classifiers.predict(task.train, features)]
    assert torch.allclose(torch.tensor(found), logits.sigmoid().mean(1), atol=1e-6)


def test_the_tokens_of_several_layers_are_read_together() -> None:
    classifiers = make(layers=2)
    encoded = EncoderOutput(
        torch.randn(5, 2, 4, 24), torch.randn(5, 24), (torch.randn(5, 2, 4, 24), torch.randn(5, 2, 4, 24))
    )
    features = classifiers.feature_spec.take(encoded)[:, None]
    assert features.shape == (5, 1, 2, 2, 4, 24) and features.dtype == torch.float16
    tokens = torch.cat([layer.half().float().flatten(1, 2) for layer in encoded.layers], 1)
    with torch.no_grad():
        assert torch.allclose(classifiers(features)[0, :, 0], alone(classifiers)(tokens), atol=1e-5)


def test_its_cost_is_a_clips_share_of_the_clips_that_are_read_together() -> None:
    def encoder(video: Tensor) -> EncoderOutput:
        return EncoderOutput(video.new_empty(1, 4, 9, 24), video.new_empty(1, 24))

    found = make(replace(TASK, views=TOGETHER)).flops(encoder, torch.empty(1, 8, 3, 32, 32, device="meta"))
    n, d = 2 * 4 * 9, 24  # two blocks of self-attention, the query's, the linear classifier
    products = 2 * (12 * n * d * d + 2 * n * n * d) + (2 * n * d * d + 9 * d * d + 2 * n * d) + 3 * d
    assert found == 2 * products // 2


# --- what fits -------------------------------------------------------------------------------------------------------


def test_it_fulfils_the_contract() -> None:
    assert isinstance(make(), Adapter)


@pytest.mark.parametrize(
    ("task", "settings", "told"),
    [
        (replace(TASK, classes=()), {}, "adapter=attentive_classifier needs a task with classes; this task has none"),
        (TASK, {"heads": 16}, "adapter.heads=16 does not divide the encoder's width 24; use one of [1, 2, 3"),
        (TASK, {"blocks": 0}, "adapter.blocks=0: wanted at least 1"),
        (TASK, {"layers": 0}, "adapter.layers=0: wanted at least 1"),
        (replace(TASK, views=TOGETHER, augment=Augment()), {}, "adapter=attentive_classifier reads the task's 2 clips"),
    ],
)
def test_what_does_not_fit_is_told(task: Task, settings: dict[str, Any], told: str) -> None:
    assert refusal(task, **settings).startswith(told)


@pytest.mark.parametrize("views", [1, 3, 8])
def test_views_that_are_no_crops_of_the_tasks_clips_are_refused(views: int) -> None:
    with pytest.raises(UserError, match=f"reads the task's 2 clips together, and {views} views are no crops of these"):
        make(replace(TASK, views=TOGETHER))(torch.zeros(1, views, 2, 4, 24))


def test_what_it_learned_has_the_authors_names_and_comes_back(tmp_path: Path) -> None:
    classifiers = make(epochs=1, batch_size=8)
    fitted(classifiers)
    trained_adapter.save_adapter(classifiers, tmp_path / "a", {"settings": {}})
    stored = load_file(tmp_path / "a" / "adapter.safetensors")
    assert {"pooler.query_tokens", "pooler.blocks.1.attn.qkv.weight", "linear.bias"} < stored.keys()
    torch.manual_seed(1)
    other = make()
    trained_adapter.restore_adapter(other, tmp_path / "a")
    assert all(torch.equal(value.half(), stored[name]) for name, value in trained_adapter.adapter_state(other).items())


# --- clips that are trained together ----------------------------------------------------------------------------------


def test_each_drawn_clip_starts_in_its_own_part_of_the_span() -> None:
    times = np.arange(400) / 10
    for views, each in ((Views("dense", stride=2, clips=4), 100), (Views("fps", fps=5.0, clips=4), 100)):
        stream = random.Random(0)
        found = np.array([frame_indices(times, 40.0, views, 8, None, stream) for _ in range(500)])
        offsets = found[..., 0] - each * np.arange(4)
        assert offsets.min() >= 0 and offsets.max() + 15 <= each and (offsets.std(0) > 15).all()
        short = frame_indices(times[:50], 5.0, views, 8, None, stream)  # parts of twelve frames for clips of sixteen
        assert [clip.tolist() for clip in short] == [clip.tolist() for clip in frame_indices(times[:50], 5.0, views, 8)]


def decoded(result: Any) -> Decoded:
    assert isinstance(result, Decoded), result
    return result


def test_an_augmented_view_may_have_all_clips_each_with_a_crop_of_its_own(films: Path) -> None:
    video = films / "00.mp4"
    views = Views("dense", clips=2, crops=3, resize="crop")
    together = augmented_views(Augment(2, all_clips=True), 0)
    whole = decoded(read_clip(video, None, views, 4, 32, together))
    assert whole.pixels.shape == (4, 4, 3, 32, 32) and len(whole.times) == 4
    for i, look in enumerate(together):
        one = decoded(read_clip(video, None, views, 4, 32, (look,)))
        assert torch.equal(one.pixels, whole.pixels[2 * i : 2 * i + 2]) and one.times == whole.times[2 * i : 2 * i + 2]
        assert one.times[0][-1] < 1.0 <= one.times[1][0]  # the film has two seconds
    brief = (0.0, 0.5)  # four frames, so that both clips show the same ones
    for area, alike in (((1.0, 1.0), True), ((0.2, 0.2), False)):
        augment = Augment(area=area, aspect=(1, 1), flip=False, all_clips=True)
        first, second = decoded(read_clip(video, brief, views, 4, 32, augmented_views(augment, 0))).pixels
        assert torch.equal(first, second) is alike


@pytest.mark.parametrize("all_clips", [False, True])
def test_what_is_stored_of_a_view_is_found_by_its_number_of_clips_only_where_it_has_all(
    tmp_path: Path, films: Path, all_clips: bool
) -> None:
    (look,) = augmented_views(Augment(all_clips=all_clips), 0)
    keys = set()
    for views in (Views(clips=2), Views(clips=4), Views(clips=4, crops=3)):
        key = FeatureKey(Identity(0, ""), None, views, Clip(), "decoder", "weights", "encoder", FeatureSpec(), "32")
        keys |= {*FeatureCache(Store(tmp_path), key).keys([Source(films / "00.mp4", None, look)], [""])}
    assert len(keys) == 1 + all_clips


PLUGIN = '''
from pathlib import Path

from evalkit.api import Augment, Example, Task, Views
from evalkit.metrics import accuracy, top1_top5


def task(root: Path) -> Task:
    """Which way a shape moves."""
    films = [Example(film.stem, film, i % 2) for i, film in enumerate(sorted(root.glob("*.mp4")))]
    return Task(
        test=films[:2], train=films[2:10], val=films[10:], score=top1_top5, classes=("left", "right"),
        views=Views("dense", clips=2, crops=3), augment=Augment(2, all_clips=True), protocol="joined",
        adapter="attentive_classifier", settings={"heads": 3, "blocks": 2, "epochs": 3, "batch_size": 4},
    )
'''


def test_a_protocol_of_joined_clips_runs_once_its_adapter_is_named(
    tmp_path: Path, films: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ways.py").write_text(PLUGIN)
    words = [f"task={tmp_path / 'ways.py'}", f"data.root={films}", f"ckpt={tiny}", f"out={tmp_path / 'runs'}"]
    assert main(["run", *words]) == 2
    told = capsys.readouterr()
    assert "protocol joined has another adapter: add adapter=attentive_classifier" in told.err
    assert main(["run", *words, "workers=1", "canary=false", "adapter=attentive_classifier"]) == 0
    run = json.loads(Path(capsys.readouterr().out.splitlines()[-1]).read_text())
    assert run["data"]["n_scored"] == 2 and run["adapter"]["settings"]["epochs"] == 3
    # Two views of two clips of eight films; two of val and two of test have six each.
    assert run["cost"]["encoder_forwards"] == 8 * 2 * 2 + 4 * 6
    assert run["adapter"]["trainable_flops"] > 0


@torch.no_grad()
def test_attention_is_what_the_values_of_each_crops_clips_are_weighed_by() -> None:
    adapter = make(replace(TASK, views=TOGETHER), heads=1, blocks=1).eval()
    draw = torch.Generator().manual_seed(1)
    for parameter in adapter.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
    features = torch.randn(1, 6, 2, 4, 24, generator=draw)  # two clips of three crops
    weights = adapter.attention([Example("a", Path("a"))], features)
    assert weights.shape == (1, 6, 1, 2, 4)
    p = adapter.adapter_state()
    at = "pooler.cross_attention_block."

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (24,), p[f"{at}{name}.weight"], p[f"{at}{name}.bias"])

    values = linear(f"{at}xattn.kv", norm("norm1", features)).chunk(2, -1)[1]
    for crop in range(3):
        of_crop = [crop, crop + 3]
        assert float(weights[0, of_crop].sum()) == pytest.approx(1, abs=1e-5)
        found = (weights[0, of_crop, 0][..., None] * values[0, of_crop]).sum((0, 1, 2))
        query = p["pooler.query_tokens"][0, 0] + found
        query = query + linear(f"{at}mlp.fc2", F.gelu(linear(f"{at}mlp.fc1", norm("norm2", query))))
        assert torch.allclose(linear("linear", query), adapter(features)[0, 0, crop], atol=1e-4)
