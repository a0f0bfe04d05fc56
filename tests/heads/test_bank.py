import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from evalkit.heads.bank import Bank, Point
from evalkit.heads.head import HeadShape
from evalkit.heads.optim import StackedAdamW, adamw

DIM, HEADS, CLASSES, STEPS = 24, 3, 5, 40
POINTS = [
    Point(lr=1e-3),
    Point(lr=1e-2, weight_decay=0.3, seed=1),
    Point(lr=3e-3, dropout=0.5, label_smoothing=0.1, seed=2),
    Point(lr=3e-2, weight_decay=0.0, dropout=0.1),
]


KINDS: dict[str, dict[str, Any]] = {
    "linear": {},
    "attentive": {"heads": HEADS},
    "mlap": {"heads": HEADS, "layers": 2},
}


class Layer(nn.Module):
    """A query crosses tokens: LayerNorm of the tokens, attention, and a transformer's MLP where there is one."""

    def __init__(self, dim: int, heads: int, mlp: bool) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(dim), nn.MultiheadAttention(dim, heads, batch_first=True)
        if mlp:
            self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        x, _ = self.attention(query, normed, normed, need_weights=False)
        return x + self.mlp(x) if hasattr(self, "mlp") else x  # type: ignore[no-any-return]


class Plain(nn.Module):
    """A probe of torch's own modules: what every head of a bank stands for."""

    def __init__(self, heads: int = 0, layers: int = 0, dim: int = DIM, classes: int = CLASSES) -> None:
        super().__init__()
        self.pool: nn.Module = Layer(dim, heads, mlp=False) if heads else nn.LayerNorm(dim)
        if layers:
            self.pool = nn.ModuleDict({"layers": nn.ModuleList(Layer(dim, heads, mlp=True) for _ in range(layers))})
        if heads:
            self.pool.register_parameter("query", nn.Parameter(torch.zeros(1, 1, dim)))
        self.classify = nn.Sequential(nn.Dropout(0), nn.Linear(dim, classes))

    def forward(self, features: Tensor) -> Tensor:
        if features.ndim == 2:
            return self.classify(self.pool(features))  # type: ignore[no-any-return]
        query = self.pool.get_parameter("query").expand(len(features), -1, -1)
        if isinstance(self.pool, nn.ModuleDict):
            for i, tokens in enumerate(features.unbind(1)):
                query = self.pool.get_submodule(f"layers.{i}")(query, tokens)
        else:
            query = self.pool(query, features)
        return self.classify(query[:, 0])  # type: ignore[no-any-return]


def data(kind: str, n: int = 48) -> tuple[Tensor, Tensor]:
    """Features that tell classes apart, with a mean and a scale that differ by token, and the classes."""
    draw = torch.Generator().manual_seed(3)
    target = torch.randint(0, CLASSES, (n,), generator=draw)
    centers = torch.randn(CLASSES, DIM, generator=draw)
    if kind == "linear":
        return centers[target] + torch.randn(n, DIM, generator=draw) + 2, target
    layers = KINDS[kind].get("layers", 1)
    noise = torch.randn(n, layers, 7, DIM, generator=draw)
    tokens = centers[target][:, None, None] + noise * torch.arange(1, 8)[:, None] + torch.arange(7)[:, None]
    return tokens if layers > 1 else tokens[:, 0], target


def train(
    points: list[Point],
    kind: str,
    steps: int | list[int] = STEPS,
    warmup: float = 0.05,
    dtype: torch.dtype = torch.float32,
) -> Bank:
    bank = Bank(points, HeadShape(DIM, CLASSES, **KINDS[kind])).to(dtype)
    optimizer = StackedAdamW(bank, steps, warmup)
    features, target = data(kind)
    for step in range(STEPS):
        descend(bank, optimizer, features, target, step)
    return bank


def descend(
    bank: nn.Module, optimizer: StackedAdamW, features: Tensor, target: Tensor, step: int, share: slice = slice(None)
) -> None:
    """One step on this process's share of the step's twelve examples."""
    rows = (torch.arange(12) + 12 * (step % 4))[share]
    optimizer.zero_grad()
    heads = bank.module if isinstance(bank, nn.parallel.DistributedDataParallel) else bank
    assert isinstance(heads, Bank)
    torch.autograd.backward(heads.loss(bank(features[rows]), target[rows]).sum())
    optimizer.step()


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest over the tensors of their largest difference, relative to their largest entry."""
    assert one.keys() == other.keys()
    return max(((one[n] - other[n]).abs().max() / other[n].abs().max().clamp(min=1e-12)).item() for n in other)


def without_key_bias(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Its gradient is zero, so that torch's Adam moves it by the sign of rounding errors; it changes no output."""
    biases = {name: value for name, value in state.items() if name.endswith("in_proj_bias")}
    return state | {name: torch.cat([value[:DIM], value[2 * DIM :]]) for name, value in biases.items()}


def perturbed(kind: str) -> Bank:
    """Every parameter away from its simple first value: gains of one, offsets of nought."""
    bank = Bank([Point(seed=i) for i in range(3)], HeadShape(DIM, CLASSES, **KINDS[kind]))
    torch.manual_seed(0)
    for value in bank.parameters():
        value.data += 0.3 * torch.randn_like(value)
    return bank


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_torchs_own_modules(
    kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalkit.heads.kernels.CHUNK", chunk)
    bank = perturbed(kind).double()
    features, target = data(kind)
    logits = bank(features)
    torch.autograd.backward(bank.loss(logits, target).sum())
    # Its parameters stand for the gradients, to be read by name.
    grads = Bank(bank.points, HeadShape(DIM, CLASSES, **KINDS[kind]))
    for name, p in bank.stacked.items():
        grads.stacked[name].data = torch.zeros_like(p) if p.grad is None else p.grad
    for k in range(3):
        plain = Plain(**KINDS[kind]).double()
        plain.load_state_dict(bank.state(k))
        expected = plain(features.double())
        torch.autograd.backward(F.cross_entropy(expected, target))
        assert torch.allclose(logits[k], expected, rtol=0, atol=1e-10)
        wanted = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
        assert difference(without_key_bias(grads.state(k)), without_key_bias(wanted)) < 1e-9


@pytest.mark.parametrize(
    ("kind", "dtype", "most"),
    [
        ("linear", torch.float32, 1e-4),
        ("attentive", torch.float32, 1e-4),
        # At these rates the training of two layers makes a difference in the last bit a thousand times larger per ten
        # steps. What is computed is the same nevertheless.
        ("mlap", torch.float64, 1e-8),
    ],
)
def test_heads_trained_together_end_as_each_alone(kind: str, dtype: torch.dtype, most: float) -> None:
    together = train(POINTS, kind, dtype=dtype)
    for k, point in enumerate(POINTS):
        assert difference(train([point], kind, dtype=dtype).state(0), together.state(k)) <= most


def test_the_norm_that_clips_a_head_does_not_depend_on_the_other_heads() -> None:
    """To the last bit, so that equal gradients make equal weights whatever trains beside them."""
    points, ends = [Point(seed=i) for i in range(3)], []
    grads = [torch.randn(3, *p.shape[1:]) for p in Bank(points, HeadShape(DIM, CLASSES)).parameters()]
    for chosen in ([0, 1, 2], [1]):
        bank = Bank([points[k] for k in chosen], HeadShape(DIM, CLASSES))
        optimizer = StackedAdamW(bank, STEPS)
        for _ in range(3):
            for p, grad in zip(bank.parameters(), grads, strict=True):
                p.grad = grad[chosen]
            optimizer.step()
        ends.append(bank.state(chosen.index(1)))
    assert difference(*ends) == 0


def test_the_head_through_four_layers_costs_what_the_paper_says() -> None:
    """As torch's own modules compute it: VideoPrism's Table 15 has 14.9 GFLOPs for 1,568 tokens."""
    with torch.device("meta"):
        plain, tokens = Plain(12, 4, 768, 400), torch.randn(1, 4, 1568, 768)
    with FlopCounterMode(display=False) as counter:
        plain(tokens)
    assert counter.get_total_flops() / 1e9 == pytest.approx(14.9, abs=0.05)
    with torch.device("meta"):
        bank = Bank([Point()], HeadShape(768, 400, 12, layers=4))
    assert sum(p.numel() for p in bank.parameters()) == sum(p.numel() for p in plain.parameters())


def test_steps_and_layers_are_refused_for_linear_probes() -> None:
    with pytest.raises(ValueError, match="layers=4: only attentive probes have them"):
        Bank([Point()], HeadShape(DIM, CLASSES, layers=4))


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_ends_as_torchs_modules_and_optimizer_would(kind: str) -> None:
    points = [POINTS[0], POINTS[1], Point(lr=3e-3, label_smoothing=0.2, seed=5)]
    together = train(points, kind)
    features, target = data(kind)
    for k, point in enumerate(points):
        plain = Plain(**KINDS[kind])
        plain.load_state_dict(Bank([point], HeadShape(DIM, CLASSES, **KINDS[kind])).state(0))
        setup = adamw(plain, point.lr, point.weight_decay, STEPS)
        for step in range(STEPS):
            rows = torch.arange(12) + 12 * (step % 4)
            loss = F.cross_entropy(plain(features[rows]), target[rows], label_smoothing=point.label_smoothing)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            setup["optimizer"].step()
            setup["optimizer"].zero_grad()
            setup["lr_scheduler"]["scheduler"].step()
        found = without_key_bias(together.state(k))
        assert difference(without_key_bias(dict(plain.state_dict())), found) <= 1e-4


def test_first_weights_are_those_of_torchs_modules_under_the_seed() -> None:
    torch.manual_seed(7)
    query, attention, linear = torch.randn(1, 1, DIM) * 0.02, nn.MultiheadAttention(DIM, 1), nn.Linear(DIM, CLASSES)
    state = Bank([Point(), Point(seed=7)], HeadShape(DIM, CLASSES, HEADS)).state(1)
    assert torch.equal(state["pool.query"], query)
    assert torch.equal(state["pool.attention.in_proj_weight"], attention.in_proj_weight)
    assert torch.equal(state["pool.attention.out_proj.weight"], attention.out_proj.weight)
    assert torch.equal(state["classify.1.weight"], linear.weight)


def test_the_callers_random_numbers_go_on_as_if_there_were_no_bank() -> None:
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    train(POINTS[2:], "linear")
    assert torch.equal(torch.randn(3), expected)


def test_half_precision_tokens_give_what_their_float_copy_gives() -> None:
    bank = perturbed("attentive")
    half = data("attentive")[0].half()
    logits = bank(half)
    assert torch.equal(logits, bank(half.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(logits, bank(half))


def test_tokens_far_from_nought_lose_no_digits() -> None:
    """The variance is that of the centered tokens, not a difference of two large numbers."""
    bank = perturbed("attentive")
    features = data("attentive")[0].double() + 300.0
    plain = Plain(HEADS).double()
    plain.load_state_dict(bank.state(0))
    assert torch.allclose(bank(features.float())[0].double(), plain(features.float().double()), atol=1e-4)


def test_no_copy_of_the_tokens_waits_for_the_backward_pass() -> None:
    tokens = torch.randn(4, 200, DIM).half()
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    bank = Bank([Point()], HeadShape(DIM, CLASSES, HEADS))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        bank(tokens)
    assert any(tensor.data_ptr() == tokens.data_ptr() for tensor in kept)
    assert not any(tensor.numel() >= tokens.numel() and tensor.data_ptr() != tokens.data_ptr() for tensor in kept)


def test_features_that_want_a_gradient_are_refused() -> None:
    with pytest.raises(ValueError, match="no gradient"):
        Bank([Point()], HeadShape(DIM, CLASSES))(torch.randn(2, DIM, requires_grad=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_heads_state_is_a_plain_probes_and_comes_back(kind: str) -> None:
    bank, other = perturbed(kind), Bank([Point(seed=9)] * 2, HeadShape(DIM, CLASSES, **KINDS[kind]))
    untouched = copy.deepcopy(other.state(0))
    Plain(**KINDS[kind]).load_state_dict(bank.state(2))  # strict: names and shapes
    other.load(1, {name: value.half() for name, value in bank.state(2).items()})
    assert difference(other.state(1), bank.state(2)) < 1e-3
    assert difference(other.state(0), untouched) == 0


def test_one_head_of_a_bank_alone_gives_what_it_gave_among_the_others() -> None:
    bank, features = perturbed("attentive"), data("attentive")[0]
    alone = bank.eval().alone(2)
    assert alone.points == bank.points[2:] and not alone.training
    assert torch.allclose(alone(features)[0], bank(features)[2], atol=1e-5)


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("steps", [4, 2])
def test_positions_are_added_to_the_tokens_of_their_step(steps: int, layers: int) -> None:
    """Output and gradients against torch's own modules; fewer steps than positions take those in between."""
    bank = Bank([Point(), Point(seed=1)], HeadShape(DIM, CLASSES, HEADS, 4, layers))
    plain = Bank(bank.points, HeadShape(DIM, CLASSES, HEADS, layers=layers))
    shape = (6, *([layers] if layers else []), steps, 3, DIM)
    tokens = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(bank(tokens), plain(tokens), atol=1e-6)  # they are zero at first
    torch.manual_seed(0)
    bank.stacked["positions"].data.normal_()
    logits, target = bank(tokens.half()), torch.randint(0, CLASSES, (6,))
    torch.autograd.backward(bank.loss(logits, target).sum())
    for k in range(2):
        state = bank.state(k)
        places = state.pop("positions").requires_grad_()
        reference = Plain(HEADS, layers)
        reference.load_state_dict(state)
        near = places if steps == 4 else (places[0::2] + places[1::2]) / 2
        expected = reference((tokens.half().float() + near).flatten(-3, -2))
        torch.autograd.backward(F.cross_entropy(expected, target))
        assert torch.allclose(logits[k], expected, atol=1e-5)
        found = bank.stacked["positions"].grad
        assert found is not None and places.grad is not None
        assert places.grad.abs().max() > 1e-4 and torch.allclose(found[k], places.grad, atol=1e-6)
