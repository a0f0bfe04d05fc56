"""The probe: what it learns, its heads, and the names in its file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from evalkit.api import Batch, EncoderOutput, Example, Task
from evalkit.errors import UserError
from evalkit.heads.optim import StackedAdamW
from evalkit.weights import trained_adapter
from tests.given import TASK, make_adapter, make_grid, small


def told_apart(probe: Any) -> Batch:
    """Features, as the probe reads them, that tell three classes apart."""
    draw = torch.Generator().manual_seed(0)
    centers, targets = torch.randn(3, 24, generator=draw), [i % 3 for i in range(48)]
    video = centers[targets][:, None, None] + 0.3 * torch.randn(48, 2, 4, 24, generator=draw)
    features = probe.feature_spec.take(EncoderOutput(video, video.mean((1, 2)), (video,) * probe.feature_spec.layers))[
        :, None
    ]
    return Batch([Example(str(i), Path(str(i)), target) for i, target in enumerate(targets)], features)


def descend(probe: Any, batch: Batch, steps: int) -> None:
    optimizer = StackedAdamW(probe.bank, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        probe.training_step(batch, 0)["loss"].backward()
        optimizer.step()
    probe.eval()


@pytest.mark.parametrize(
    "settings",
    [{"head": "linear"}, {"head": "attentive"}, {"temporal_positions": True}, {"head": "mlap", "layers": 2}],
)
def test_a_probe_learns_classes_that_its_features_tell_apart(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    probe = make_adapter("probe", small(), TASK, lr=3e-3, **settings)
    batch = told_apart(probe)
    descend(probe, batch, 60)
    found = probe.predict(batch.examples, batch.features)
    assert [prediction.value[0] for prediction in found] == [example.target for example in batch.examples]
    assert all(sorted(prediction.value) == [0, 1, 2] for prediction in found)


def test_the_attentive_head_is_torchs_cross_attention_with_one_query() -> None:
    """Its loss and its predictions too, over two views."""
    probe = make_adapter("probe", small(), TASK, head="attentive", label_smoothing=0.1).eval()
    state = probe.bank.state(0)
    attention = nn.MultiheadAttention(24, probe.bank.shape.heads, batch_first=True)
    named = {name.removeprefix("pool.attention."): value for name, value in state.items() if "attention" in name}
    attention.load_state_dict(named)
    features = torch.randn(5, 2, 4, 6, 24)
    normed = torch.nn.functional.layer_norm(
        features.flatten(0, 1).flatten(1, 2), (24,), state["pool.norm.weight"], state["pool.norm.bias"]
    )
    pooled = attention(state["pool.query"].expand(10, -1, -1), normed, normed)[0][:, 0]
    logits = pooled @ state["classify.1.weight"].T + state["classify.1.bias"]
    assert torch.allclose(probe(features.flatten(0, 1))[0], logits, atol=1e-5)
    examples = [Example(str(i), Path(str(i)), i % 3) for i in range(5)]
    target = torch.tensor([i % 3 for i in range(5)]).repeat_interleave(2)
    loss = nn.functional.cross_entropy(logits, target, label_smoothing=0.1)
    assert probe.training_step(Batch(examples, features), 0)["loss"].item() == pytest.approx(loss.item(), abs=1e-5)
    best = logits.softmax(-1).view(5, 2, 3).mean(1).topk(3)
    assert [p.value for p in probe.predict(examples, features)] == best.indices.tolist()


def test_a_probe_averages_the_softmax_of_its_views() -> None:
    probe = make_adapter("probe", small(), TASK, head="linear").eval()
    views = torch.randn(1, 3, 24)
    expected = torch.stack([probe(views[:, i])[0].softmax(-1) for i in range(3)]).mean(0)[0]
    detail = probe.predict([Example("1", Path("1"))], views)[0].detail
    assert detail["probabilities"] == pytest.approx(sorted(expected.tolist(), reverse=True), abs=1e-5)


def several(*targets: Any) -> Task:
    train = [Example(str(i), Path(str(i)), target) for i, target in enumerate(targets)]
    return replace(TASK, train=train)


def test_a_probe_gives_every_class_its_own_sigmoid_where_an_example_may_have_several() -> None:
    """Over two views: torch's binary cross-entropy, and the mean of the sigmoid."""
    task = several((0, 2), (), [1], (0, 1, 2))
    probe = make_adapter("probe", small(), task, head="linear").eval()
    features = torch.randn(4, 2, 24)
    present = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])
    logits = probe(features.flatten(0, 1))[0].unflatten(0, (4, 2))
    loss = nn.functional.binary_cross_entropy_with_logits(logits, present[:, None].expand(4, 2, 3))
    assert probe.training_step(Batch(task.train, features), 0)["loss"].item() == pytest.approx(loss.item(), abs=1e-6)
    found = [prediction.value for prediction in probe.predict(task.train, features)]
    assert torch.allclose(torch.tensor(found), logits.sigmoid().mean(1), atol=1e-6)


def test_a_probe_learns_which_of_several_classes_are_there() -> None:
    targets = [(), (0,), (0, 1), (2,), (1, 2)]
    probe = make_adapter("probe", small(), several(*targets), lr=1e-2)
    draw = torch.Generator().manual_seed(0)
    batch = Batch(several(*targets * 8).train, torch.randn(5, 1, 2, 4, 24, generator=draw).repeat(8, 1, 1, 1, 1))
    descend(probe, batch, 60)
    found = probe.predict(batch.examples, batch.features)
    assert [tuple(c for c in range(3) if p.value[c] > 0.5) for p in found] == targets * 8


@pytest.mark.parametrize(
    ("targets", "settings", "told"),
    [
        (((0,), 1), {}, "example '1' has the target 1, others have lists of class indices: wanted one kind"),
        (((0,), (1, 3)), {}, "example '1': target 3 is not an index of its 3 classes"),
        (((0,),), {"label_smoothing": 0.1}, "adapter.label_smoothing is of the softmax"),
    ],
)
def test_what_does_not_fit_several_classes_is_refused(
    targets: tuple[Any, ...], settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        make_adapter("probe", small(), several(*targets), **settings)


def test_the_equalization_loss_spares_classes_that_are_rare_in_training() -> None:
    task = several(*[0] * 60, *[1] * 38, 2, 2)
    probe = make_adapter("probe", small(), task, eql_gamma=0.9, eql_lambda=0.05)
    assert probe.bank.eql_drop_rate == (0, 0, 0.9)
    probe.bank.alone(0)
    with pytest.raises(UserError, match=r"eql_lambda=0.005: no class is that rare; the rarest has 0.02 of the ex"):
        make_adapter("probe", small(), task, eql_gamma=0.9)
    with pytest.raises(UserError, match="adapter.eql_gamma is of the softmax; this task has several classes"):
        make_adapter("probe", small(), several((0,), (1,)), eql_gamma=0.9)
    with pytest.raises(UserError, match="adapter.eql_gamma=2: wanted a share from 0 to 1"):
        make_adapter("probe", small(), task, eql_gamma=2)


def grid(**settings: Any) -> Any:
    """Three points that differ in their rate and smoothing."""
    rates = [{"lr": 1e-9}, {"lr": 1e-2, "weight_decay": 0.3}, {"lr": 1e-2, "label_smoothing": 0.3}]
    return make_grid("probe", small(), TASK, [{**settings, **rate} for rate in rates])


@pytest.mark.parametrize("head", ["linear", "attentive"])
def test_choosing_leaves_one_probe_that_is_what_it_was_among_the_others(head: str) -> None:
    probe = grid(head=head)
    batch = told_apart(probe)
    descend(probe, batch, 30)
    found = probe.predict_all(batch.examples, batch.features)
    right = [sum(p.value[0] == i % 3 for i, p in enumerate(of_point)) for of_point in found]
    assert probe.points == 3 and right[0] < right[1] == right[2] == 48
    assert found[1] != found[2]
    with pytest.raises(ValueError, match="too many values"):
        probe.predict(batch.examples, batch.features)
    probe.select(2)
    assert probe.points == 1 and all(len(p) == 1 for p in probe.parameters())
    for one, other in zip(probe.predict(batch.examples, batch.features), found[2], strict=True):
        assert one.value == other.value
        assert one.detail["probabilities"] == pytest.approx(other.detail["probabilities"], abs=1e-5)


@pytest.mark.parametrize("head", ["linear", "attentive"])
def test_a_probes_file_has_the_names_of_torchs_own_modules_and_comes_back(head: str, tmp_path: Path) -> None:
    probe = grid(head=head)
    descend(probe, told_apart(probe), 3)
    probe.select(1)
    trained_adapter.save_adapter(probe, tmp_path / "a", {"settings": {}})
    names = {"classify.1.weight", "classify.1.bias"} | (
        {"pool.weight", "pool.bias"}
        if head == "linear"
        else {"pool.query", "pool.norm.weight", "pool.norm.bias"}
        | {f"pool.attention.{part}{kind}" for part in ("in_proj_", "out_proj.") for kind in ("weight", "bias")}
    )
    stored = load_file(tmp_path / "a" / "adapter.safetensors")
    assert set(stored) == names
    torch.manual_seed(1)
    other = make_adapter("probe", small(), TASK, head=head)
    other.bank.stacked["weight"].data.zero_()
    trained_adapter.restore_adapter(other, tmp_path / "a")
    assert all(torch.equal(value.half(), stored[name]) for name, value in trained_adapter.adapter_state(other).items())


def test_positions_in_time_are_refused_for_a_linear_probe() -> None:
    with pytest.raises(UserError, match="temporal_positions=true has no effect with adapter.head=linear"):
        make_adapter("probe", small(), TASK, head="linear", temporal_positions=True)


def test_mlap_keeps_the_last_layers_and_its_file_has_a_layer_for_each(tmp_path: Path) -> None:
    probe = make_adapter("probe", small(), TASK, head="mlap", layers=2).eval()
    with torch.inference_mode():
        encoded = small()(torch.randn(3, 4, 3, 32, 32), layers=2)
    features = probe.feature_spec.take(encoded)[:, None]
    assert features.shape[2] == 2 and probe.predict([Example("1", Path("1"))], features[:1])[0].value
    trained_adapter.save_adapter(probe, tmp_path / "a", {"settings": {}})
    torch.manual_seed(1)
    other = make_adapter("probe", small(), TASK, head="mlap", layers=2).eval()
    other.bank.stacked["up_weight1"].data.zero_()
    trained_adapter.restore_adapter(other, tmp_path / "a")
    assert torch.allclose(other(features[:, 0]), probe(features[:, 0]), atol=1e-2)
    assert "pool.layers.1.mlp.3.weight" in load_file(tmp_path / "a" / "adapter.safetensors")
    assert make_adapter("probe", small(), TASK, head="mlap").feature_spec.layers == 4


def test_layers_are_refused_for_a_head_that_reads_one() -> None:
    with pytest.raises(UserError, match="adapter.layers=2 has no effect with adapter.head=attentive; use head=mlap"):
        make_adapter("probe", small(), TASK, layers=2)


def test_a_number_of_heads_that_does_not_divide_the_width_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"adapter.heads=5 does not divide the encoder's width 24; use one of \[1, 2, 3"
    ):
        make_adapter("probe", small(), TASK, heads=5)
