"""How the heads of a bank are trained: their losses, steps and processes."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from evalkit.errors import UserError
from evalkit.heads.bank import Bank, Point
from evalkit.heads.head import HeadShape
from evalkit.heads.optim import StackedAdamW, adamw, warmup_cosine
from tests.forked import CONTEXT
from tests.heads.test_bank import CLASSES, DIM, HEADS, KINDS, POINTS, STEPS, data, descend, difference, train


def test_each_loss_is_torchs_cross_entropy_with_the_heads_own_smoothing() -> None:
    bank = Bank(POINTS, HeadShape(DIM, CLASSES))
    logits, target = torch.randn(4, 9, CLASSES), torch.randint(0, CLASSES, (9,))
    expected = [
        F.cross_entropy(z, target, label_smoothing=p.label_smoothing) for z, p in zip(logits, POINTS, strict=True)
    ]
    assert torch.allclose(bank.loss(logits, target), torch.stack(expected))


def test_each_loss_is_torchs_binary_cross_entropy_where_several_classes_can_be_right() -> None:
    logits, target = torch.randn(4, 9, CLASSES), torch.randint(0, 2, (9, CLASSES))
    expected = [F.binary_cross_entropy_with_logits(z, target.float()) for z in logits]
    assert torch.allclose(Bank(POINTS, HeadShape(DIM, CLASSES)).loss(logits, target), torch.stack(expected))


def test_the_equalization_loss_leaves_negatives_of_rare_classes_out_of_the_softmax() -> None:
    """By the paper's formula; all negatives where the share is one, the share of them else, none while evaluating."""
    draw = torch.Generator().manual_seed(0)
    z, target = torch.randn(2, 9, CLASSES, generator=draw), torch.randint(0, CLASSES, (9,), generator=draw)
    rare = torch.tensor([0.0, 1, 0, 1, 0])
    bank = Bank([Point(), Point(seed=1)], HeadShape(DIM, CLASSES), rare.tolist())
    weight = 1 - rare * (1 - F.one_hot(target, CLASSES))
    expected = -(z.exp().gather(-1, target.expand(2, 9)[..., None])[..., 0] / (weight * z.exp()).sum(-1)).log().mean(1)
    assert torch.allclose(bank.loss(z, target), expected)
    plain = Bank(bank.points, HeadShape(DIM, CLASSES)).loss(z, target)
    assert torch.allclose(bank.eval().loss(z, target), plain)
    some = Bank(bank.points, HeadShape(DIM, CLASSES), (0.3 * rare).tolist())
    logits, ones = torch.zeros(2, 4000, CLASSES, requires_grad=True), torch.zeros(4000, dtype=torch.int64)
    torch.autograd.backward(some.loss(logits, ones).sum())
    assert logits.grad is not None
    left_out = (logits.grad == 0).float().mean(1)
    assert torch.allclose(left_out, 0.3 * rare.expand(2, -1), atol=0.03)
    assert not torch.equal(*(logits.grad[k] == 0 for k in range(2)))


def test_labels_are_not_smoothed_with_the_equalization_loss() -> None:
    with pytest.raises(UserError, match="adapter.label_smoothing=0.1: with the equalization loss set it to 0"):
        Bank([Point(label_smoothing=0.1)], HeadShape(DIM, CLASSES), [0.9] * CLASSES)


def test_dropout_drops_the_heads_own_share_while_training_only() -> None:
    bank = Bank(
        [Point(), Point(dropout=0.25), Point(dropout=0.25), Point(dropout=0.25, seed=1)], HeadShape(DIM, CLASSES)
    )
    for name, value in (("weight", torch.eye(CLASSES, DIM)), ("bias", torch.zeros(CLASSES))):
        bank.stacked[name].data[:] = value  # the logits are the first of the numbers that were dropped or kept
    features = data("linear", 500)[0]
    whole = F.layer_norm(features, (DIM,))[:, :CLASSES]
    kept, again = bank(features) / whole, bank(features) / whole
    assert torch.allclose(kept[0], torch.ones(500, CLASSES))
    assert (kept[1] == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert torch.allclose(kept[1][kept[1] != 0], torch.tensor(4 / 3))
    assert torch.equal(kept[1], kept[2]) and not torch.equal(kept[1], kept[3])
    assert not torch.equal(kept[1], again[1])
    bank.eval()
    assert torch.equal(bank(features)[1], bank(features)[1])


@pytest.mark.parametrize("dropout", [1.0, -0.1])
def test_a_dropout_that_is_no_share_is_refused(dropout: float) -> None:
    with pytest.raises(UserError, match=f"adapter.dropout={dropout:g}: wanted a share from 0"):
        Bank([Point(dropout=dropout)], HeadShape(DIM, CLASSES))


def test_the_schedule_is_that_of_a_single_fit() -> None:
    module = nn.Linear(2, 2)
    setup = adamw(module, 1.0, 0.0, 50, warmup=0.1)
    factor = setup["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [warmup_cosine(step, 50, 0.1) for step in range(51)] == [factor(step) for step in range(51)]


def test_a_head_with_fewer_steps_rests_when_they_are_done() -> None:
    bank = train([Point(), Point()], "linear", [STEPS, 10])
    assert difference(bank.state(0), train([Point()], "linear").state(0)) <= 1e-4
    alone = Bank([Point()], HeadShape(DIM, CLASSES))
    optimizer = StackedAdamW(alone, 10)
    features, target = data("linear")
    for step in range(10):
        descend(alone, optimizer, features, target, step)
    assert difference(bank.state(1), alone.state(0)) <= 1e-4


def test_the_optimizer_runs_the_closure_that_lightning_gives_it() -> None:
    bank = Bank([Point()], HeadShape(DIM, CLASSES))
    before = bank.state(0)["classify.1.weight"].clone()
    optimizer = StackedAdamW(bank, 3)
    features, target = data("linear")

    def closure() -> float:
        loss = bank.loss(bank(features), target).sum()
        torch.autograd.backward(loss)
        return loss.item()

    loss = optimizer.step(closure)
    assert loss is not None and loss > 0
    assert not torch.equal(bank.state(0)["classify.1.weight"], before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_diverges_is_named_and_the_others_go_on(kind: str) -> None:
    bank = Bank([Point(), Point(seed=1), Point(seed=2)], HeadShape(DIM, CLASSES, **KINDS[kind]))
    bank.stacked["bias"].data[1] = math.inf
    optimizer = StackedAdamW(bank, STEPS)
    features, target = data(kind)
    for step in range(STEPS):
        descend(bank, optimizer, features, target, step)
    assert optimizer.diverged.tolist() == [0, 1, 0]
    for k in (0, 2):
        assert difference(train([bank.points[k]], kind).state(0), bank.state(k)) <= 1e-4


def spread(rank: int, folder: Path) -> None:
    """One of two processes, each with every other example."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    bank = Bank(POINTS, HeadShape(DIM, CLASSES, HEADS))
    bank.share = rank, 2
    shared = nn.parallel.DistributedDataParallel(bank)
    optimizer = StackedAdamW(bank, STEPS)
    features, target = data("attentive")
    for step in range(STEPS):
        descend(shared, optimizer, features, target, step, slice(rank, None, 2))
    torch.save([bank.state(k) for k in range(len(POINTS))], folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_end_as_one_does(tmp_path: Path) -> None:
    processes = [CONTEXT.Process(target=spread, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    alone = train(POINTS, "attentive")
    for rank in range(2):
        for k, state in enumerate(torch.load(tmp_path / f"{rank}.pt")):
            assert difference(state, alone.state(k)) <= 1e-4
