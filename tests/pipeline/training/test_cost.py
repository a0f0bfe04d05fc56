"""What a step of training costs: bytes by hand, masked against unmasked, and a training that is not changed by it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from evalkit.api import Batch, Example, Prediction, Task
from evalkit.features.batches import InMemoryFeatures
from evalkit.features.sources import Source
from evalkit.heads.adapter import Adapter
from evalkit.metrics import accuracy, top1_top5
from evalkit.pipeline.training.cost import Flops, SavedBytes
from evalkit.pipeline.training.examples import Examples
from evalkit.pipeline.training.trainer import TrainSpec, fit
from evalkit.results.schema import violations
from tests.given import CLIP, make_adapter, small
from tests.records import result_of, rows_of

B, N, D, H = 3, 50, 24, 3
FLOAT = 4


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (H, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def saved(module: nn.Module, x: Tensor, of: Any = None) -> int:
    with SavedBytes(module, (x,)) as counting:
        loss = (of or module)(x).sum()
    return counting.count(loss)


def test_a_linear_map_keeps_its_input_and_no_parameter() -> None:
    assert saved(nn.Linear(D, 4), torch.randn(B, D)) == FLOAT * B * D
    assert saved(nn.Linear(D, 4).requires_grad_(False), torch.randn(B, D)) == 0


def test_an_activation_keeps_its_input_and_what_follows_the_output() -> None:
    mlp = nn.Sequential(nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))
    assert saved(mlp, torch.randn(B, D)) == FLOAT * B * (D + 2 * D + 2 * D)
    # The last map alone is trained: the activation before it need not be differentiated.
    mlp[:2].requires_grad_(False)
    assert saved(mlp, torch.randn(B, D)) == FLOAT * B * 2 * D


def test_attention_keeps_queries_keys_values_output_and_a_float_per_query_and_head() -> None:
    assert saved(Attention(), torch.randn(B, N, D)) == FLOAT * B * N * (D + 3 * D + D + H)


def test_a_storage_counts_once_and_a_batch_by_its_own_size() -> None:
    scale = nn.Parameter(torch.ones(()))
    module = nn.Module()
    module.scale = scale
    store = torch.randn(1000, D)
    assert saved(module, store[:B], lambda x: x * scale + x * scale) == FLOAT * B * D


def test_what_autograd_lets_go_of_again_is_not_counted() -> None:
    module = nn.Linear(D, D)

    def forward(x: Tensor) -> Tensor:
        module(torch.randn(100, D)).exp()
        return module(x)  # type: ignore[no-any-return]

    assert saved(module, torch.randn(B, D), forward) == FLOAT * B * D


def test_a_frozen_tower_below_trained_layers_is_not_kept_and_lora_through_the_depth_is() -> None:
    def kept(**tuning: Any) -> int:
        encoder = small(**{key: value for key, value in tuning.items() if key == "lora"}).train()
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(any(part in name for part in tuning["trained"]))
        video = CLIP.normalize(torch.zeros(2, 4, 3, 32, 32, dtype=torch.uint8))
        with SavedBytes(encoder, (video,)) as counting:
            loss = encoder(video).pooled.sum()
        return counting.count(loss)

    everything = kept(trained=("",))
    assert kept(trained=("blocks.1.", "norm.")) < 0.62 * everything
    # Gradients still flow through the depth: what the papers say of parameter-efficient tuning.
    assert 0.9 * everything < kept(trained=("lora_", "patch."), lora=2)


def test_masking_keeps_the_bytes_of_what_it_leaves() -> None:
    encoder = small().train().requires_grad_(True)
    video = CLIP.normalize(torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8))

    def kept(mask_ratio: float) -> int:
        return saved(encoder, video, lambda x: encoder(x, mask_ratio=mask_ratio).tokens)

    assert kept(0.5) < kept(0.0) / 1.5
    assert kept(0.5) == kept(0.5)


def test_flops_are_those_of_torch_and_fused_attention_counts_on_a_cpu() -> None:
    module, x = Attention(), torch.randn(B, N, D)
    mlp = nn.Sequential(nn.Linear(D, D), nn.GELU(), nn.Linear(D, D))
    with FlopCounterMode(display=False) as expected:
        mlp(x).sum().backward()
    with Flops() as counted:
        mlp(x).sum().backward()
    assert counted.total == expected.get_total_flops() > 0
    with Flops() as attention:
        module(x).sum().backward()
    linear = 2 * B * N * D * (3 * D + D)  # forward; again for the weights; and for the input of the second map
    product = 2 * B * N * N * D
    assert attention.total == 2 * linear + 2 * B * N * D * D + (2 + 5) * product


# --- in a fit ---------------------------------------------------------------------------------------------------------


class Dropped(Adapter):
    """A linear map after dropout, which draws in every step."""

    epochs, batch_size = 3, 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(D, 2)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        rows = F.dropout(batch.features[:, 0], 0.5)
        return F.cross_entropy(self.head(rows), torch.tensor([example.target for example in batch.examples]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        assert features is not None
        return [Prediction(row) for row in self.head(features[:, 0]).argmax(-1).tolist()]


def data(n: int) -> Examples:
    rows = [Example(str(i), Path(str(i)), i % 2) for i in range(n)]
    features = torch.randn(n, 1, D, generator=torch.Generator().manual_seed(1))
    return Examples(rows, InMemoryFeatures(features), {Source(row.video, None): i for i, row in enumerate(rows)})


def test_weights_and_random_state_are_those_of_a_plain_loop() -> None:
    train = data(12)
    adapter = Dropped()
    torch.manual_seed(7)
    cost = fit(adapter, train, train, accuracy, TrainSpec(torch.device("cpu"))).cost
    state = torch.get_rng_state()

    plain = Dropped()
    optimizer: Any = plain.configure_optimizers()
    torch.manual_seed(7)
    best, kept = -1.0, {}
    order = torch.Generator().manual_seed(0)
    for _ in range(plain.epochs):
        numbers: Any = range(12)
        loader: Any = torch.utils.data.DataLoader(numbers, batch_size=4, shuffle=True, generator=order, collate_fn=list)
        for (batch,) in (train.batches([places]) for places in loader):
            optimizer.zero_grad()
            plain.training_step(batch, 0).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimizer.step()
        (whole,) = train.batches([list(range(12))])
        score = sum(p.value == e.target for p, e in zip(plain.predict(*_of(whole)), whole.examples, strict=True))
        if score >= best:
            best, kept = score, {name: value.clone() for name, value in plain.state_dict().items()}
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(adapter.state_dict()[name], value) for name, value in kept.items())

    assert cost is not None
    rows = FLOAT * 4 * D
    mask = rows + 0  # of the dropout, as a CPU keeps it
    logits = FLOAT * 4 * 2
    assert cost["saved_bytes"] in range(rows + logits, rows + mask + logits + 4 * 8 + 64)
    assert (cost["trainable"], cost["batch"], cost["peak_of"]) == (2 * D + 2, 4, "process")
    assert cost["peak_bytes"] > 10e6 and cost["seconds"] > 0 and cost["flops"] > 0 and "points" not in cost


def _of(batch: Batch) -> tuple[Sequence[Example], Tensor]:
    return batch.examples, batch.features


def test_a_step_that_fails_leaves_nothing_that_counts() -> None:
    class Failing(Dropped):
        def training_step(self, batch: Batch, index: int) -> Tensor:
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        fit(Failing(), data(8), data(8), accuracy, TrainSpec(torch.device("cpu")))
    with Flops() as counted:
        nn.Linear(2, 2)(torch.zeros(1, 2))
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None and counted.total > 0


def test_what_is_solved_at_once_has_no_step() -> None:
    task = Task(test=(), score=accuracy, classes=("a", "b"))
    adapter = make_adapter("ridge", small(), task)
    assert fit(adapter, data(8), data(8), top1_top5, TrainSpec(torch.device("cpu"))).cost is None


def test_the_schema_takes_the_cost_of_training_and_nothing_else_in_it() -> None:
    content = result_of(rows_of(3, 1))
    content["data"]["predictions_sha256"] = content["task"]["protocol_sha256"] = "0" * 64
    training = {"saved_bytes": 1, "peak_bytes": None, "peak_of": "device", "seconds": 0.1, "flops": None}
    content["cost"]["training"] = training | {"trainable": 3, "batch": 4}
    assert violations(content) == []
    content["cost"]["training"]["kept"] = 1
    assert violations(content) != []
