"""An example's box: what of the frame and of the tokens lies in it, and a probe that asks with it."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit.api import Augment, Batch, Clip, EncoderOutput, Example, Task, Views
from evalkit.cli import main
from evalkit.encoders.longvivit import ViViT, encoder
from evalkit.errors import UserError
from evalkit.features.sources import sources
from evalkit.heads import boxes
from evalkit.heads.bank import Bank, Point
from evalkit.heads.head import Head, HeadShape
from evalkit.heads.optim import StackedAdamW
from evalkit.metrics.average_precision import box_map
from evalkit.mini import classes, film, world
from evalkit.results import run_folder
from evalkit.video.clips import Decoded, read_clip
from tests.given import make_adapter, run_of

BOX = (0.1, 0.2, 0.6, 0.9)
SQUASH = Views("uniform", resize="squash")


def boxed(box: Any, **more: Any) -> Task:
    return Task(test=[Example("one", Path("one.mp4"), (0,), box=box)], score=box_map, classes=("a", "b", "c"), **more)


# --- shares of the frame ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [BOX, (0.0, 0.0, 1.0, 1.0), (0.26, 0.51, 0.27, 0.52), (0.75, 0.0, 1.0, 0.25)])
def test_a_boxs_share_of_a_field_is_that_of_its_fine_pixels(box: tuple[float, float, float, float]) -> None:
    fine, side = 400, 4
    inside = np.zeros((fine, fine))
    left, top, right, bottom = (round(edge * fine) for edge in box)
    inside[top:bottom, left:right] = 1
    wanted = inside.reshape(side, fine // side, side, fine // side).sum((1, 3)).flatten() / inside.sum()
    assert boxes.shares(torch.tensor([box]), side**2)[0].numpy() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(("box", "field"), [((0.6, 0.1, 0.6, 0.1), 2), ((1.0, 1.0, 1.0, 1.0), 15), ((0, 0, 0, 0), 0)])
def test_a_box_without_an_area_lies_in_one_field(box: tuple[float, float, float, float], field: int) -> None:
    assert (
        boxes.shares(torch.tensor([box], dtype=torch.float32), 16)[0].tolist()
        == F.one_hot(torch.tensor(field), 16).tolist()
    )


def test_the_mean_in_a_box_is_over_its_tokens_of_all_times() -> None:
    tokens = torch.zeros(1, 3, 16, 2, dtype=torch.float16)
    tokens[0, :, 6] = torch.tensor([[1.0, 0], [2, 0], [6, 3]])  # in the second row, the third of four
    assert boxes.mean_in(torch.tensor([[0.5, 0.25, 0.75, 0.5]]), tokens)[0].tolist() == pytest.approx([3, 1], abs=1e-4)


def test_tokens_that_are_no_square_are_refused() -> None:
    with pytest.raises(UserError, match="wants tokens in a square; the encoder's 6 of a moment are none"):
        boxes.mean_in(torch.tensor([BOX]), torch.zeros(1, 2, 6, 3))


def test_a_box_lies_where_a_squashed_clip_shows_it(tmp_path: Path) -> None:
    """A white part of a black frame that is three times as wide as it is high."""
    box, high, wide = (0.5, 0.25, 0.75, 0.5), 64, 192
    image = np.zeros((high, wide, 3), np.uint8)
    image[round(box[1] * high) : round(box[3] * high), round(box[0] * wide) : round(box[2] * wide)] = 255
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = wide, high, "yuv420p", Fraction(1, 8)
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    read = read_clip(tmp_path / "film.mp4", None, SQUASH, 2, 32)
    assert isinstance(read, Decoded)
    tokens = read.pixels.float().mean(2).unfold(2, 8, 8).unfold(3, 8, 8).mean((-1, -2)).flatten(2)[..., None]
    assert boxes.mean_in(torch.tensor([box]), tokens).item() > 230
    assert tokens.mean().item() < 20


# --- what does not go together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "box", [(0.5, 0, 0.4, 1), (0, 0, 1.01, 1), (-0.1, 0, 1, 1), (0, 0.9, 1, 0.8), (0, 0, 1, float("nan"))]
)
def test_what_is_no_box_is_told_with_its_example(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(
        UserError, match=r"^example 'one' has the box \(.*\): wanted left, top, right and bottom in 0..1$"
    ):
        boxes.check(boxed(box), SQUASH, None)


def test_clips_that_cut_or_mirror_the_frame_are_refused_where_there_are_boxes() -> None:
    plain = Augment(area=(1, 1), flip=False)
    boxes.check(boxed(BOX), SQUASH, None)
    boxes.check(boxed(BOX), SQUASH, plain)
    boxes.check(boxed(None), replace(SQUASH, resize="crop"), Augment())
    with pytest.raises(UserError, match=r"^clip.resize=crop cuts the frame .* use clip.resize=squash$"):
        boxes.check(boxed(BOX), replace(SQUASH, resize="crop"), None)
    for augment in (replace(plain, flip=True), replace(plain, area=(0.5, 1.0))):
        with pytest.raises(UserError, match=r"training views cut or mirror .* use trainer.views=0"):
            boxes.check(boxed(BOX), SQUASH, augment)


def test_a_run_whose_clips_would_be_cut_is_refused(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    assert main(["run", "task=chimpact", f"ckpt={tiny}", "mini=true", "clip.resize=crop"]) == 2
    assert "clip.resize=crop cuts the frame that the task's boxes lie in" in capsys.readouterr().err


# --- what is the same, and what is not --------------------------------------------------------------------------------


def test_boxes_are_part_of_the_datas_fingerprint_and_not_of_what_is_encoded() -> None:
    one, other = (Example("a", Path("a.mp4"), 1, box=box) for box in (BOX, (0.1, 0.2, 0.6, 0.8)))
    frames = [replace(one, box=None, boxes=boxes) for boxes in ((), ((*BOX, 0.9),), ((*BOX, 0.8),))]
    asked = [one, other, replace(one, box=None), *frames]
    assert len({run_folder.fingerprint([e]) for e in asked}) == 6
    assert len(sources(asked)) == 1


def test_an_example_without_a_box_has_the_fingerprint_that_it_had_before_there_were_boxes() -> None:
    found = run_folder.fingerprint(
        [Example("a", Path("/somewhere/a.mp4"), 1, (0.0, 2.5), "Which?", ("x", "y"), "kind")]
    )
    assert found == "4460e7a520e821091b0c618f4302fffc6369ddd2bd13862123b6c22ff8701a22"


# --- the probe --------------------------------------------------------------------------------------------------------

DIM, HEADS, CLASSES = 24, 3, 5


class Plain(nn.Module):
    """A box's head of torch's own modules."""

    def __init__(self, layers: int = 0) -> None:
        super().__init__()
        self.pool = nn.Module()
        if layers:
            self.pool.layers = nn.ModuleList(nn.Module() for _ in range(layers))
        for part in self.parts():
            part.norm, part.attention = nn.LayerNorm(DIM), nn.MultiheadAttention(DIM, HEADS, batch_first=True)
            if layers:
                part.mlp = nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))
        self.classify = nn.Sequential(nn.Dropout(0), nn.Linear(DIM, CLASSES))

    def parts(self) -> list[Any]:
        return [*getattr(self.pool, "layers", [self.pool])]

    def forward(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """Logits of tokens (B, T', S, D) or (B, layers, T', S, D) and what share of each box is in each of S (B, S)."""
        layers = tokens.unbind(1) if tokens.ndim == 5 else (tokens,)
        query = self.parts()[-1].norm((layers[-1].mean(1) * weights[..., None]).sum(1, keepdim=True))
        for part, of_layer in zip(self.parts(), layers, strict=True):
            normed = part.norm(of_layer.flatten(1, 2))
            query = query + part.attention(query, normed, normed)[0]
            query = query + part.mlp(query) if hasattr(part, "mlp") else query
        return self.classify(query[:, 0])  # type: ignore[no-any-return]


SHAPE = HeadShape(DIM, CLASSES, HEADS, boxed=True)


def perturbed(points: int = 3, shape: HeadShape = SHAPE) -> Bank:
    bank = Bank([Point(seed=i) for i in range(points)], shape)
    torch.manual_seed(0)
    for value in bank.parameters():
        value.data += 0.3 * torch.randn_like(value)
    return bank.double()


@pytest.mark.parametrize(("chunk", "layers"), [(1, 0), (1 << 20, 0), (1, 3), (1 << 20, 1)])
def test_outputs_and_gradients_are_those_of_torchs_own_modules(
    chunk: int, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalkit.heads.kernels.CHUNK", chunk)
    draw = torch.Generator().manual_seed(1)
    sizes = (6, *([layers] if layers > 1 else []), 3, 16, DIM)
    tokens = torch.randn(sizes, generator=draw, dtype=torch.float64) * torch.arange(1, 17)[:, None]
    corners = torch.rand(6, 2, 2, generator=draw, dtype=torch.float64).sort(1).values.flatten(1)
    target = torch.randint(2, (6, CLASSES), generator=draw)
    bank = perturbed(shape=replace(SHAPE, layers=layers))
    logits = bank(tokens, corners)
    torch.autograd.backward(bank.loss(logits, target).sum())
    for k in range(3):
        plain = Plain(layers).double()
        plain.load_state_dict(bank.state(k))
        expected = plain(tokens, boxes.shares(corners, 16))
        torch.autograd.backward(F.binary_cross_entropy_with_logits(expected, target.double()))
        assert torch.allclose(logits[k], expected, rtol=0, atol=1e-10)
        for name, value in plain.named_parameters():
            own = next(one for one, called in bank.names.items() if called == name)
            grad = bank.stacked[own].grad
            if not name.endswith("attention.in_proj_bias"):  # which is three of the bank's
                assert grad is not None and value.grad is not None
                part = value.grad.chunk(3)[0] if name.endswith("in_proj_weight") else value.grad
                assert torch.allclose(grad[k], part, rtol=0, atol=1e-9), name


@pytest.mark.parametrize(("layers", "steps"), [(0, 0), (1, 0), (4, 0), (4, 3)])
def test_the_head_for_flops_is_one_of_the_bank_and_asks_with_the_whole_frame_where_nothing_is_said(
    layers: int, steps: int
) -> None:
    shape = replace(SHAPE, layers=layers, steps=steps)
    bank, head = perturbed(1, shape), Head(shape).double()
    head.load_state_dict(bank.state(0))
    sizes = (2, *([layers] if layers > 1 else []), 3, 16, DIM)
    tokens, whole = torch.randn(sizes, dtype=torch.float64), torch.tensor([boxes.WHOLE] * 2)
    assert torch.allclose(head(tokens), bank(tokens, whole)[0], rtol=0, atol=1e-9)
    assert not torch.allclose(head(tokens, torch.tensor([BOX] * 2)), head(tokens), rtol=0, atol=1e-3)


def tiny_encoder() -> ViViT:
    torch.manual_seed(0)
    return encoder(Clip(frames=4, size=64), None, dim=24, depth=2, heads=3, hidden=48).eval()


def probe(task: Task, **settings: Any) -> Any:
    return make_adapter("probe", tiny_encoder(), task, head="box", **settings)


def halves() -> tuple[Task, Batch]:
    """Videos of whose left half one class tells, and of whose right half another."""
    draw = torch.Generator().manual_seed(0)
    targets = [(i % 3, (i + 1 + i // 3 % 2) % 3) for i in range(24)]
    centers, field = torch.randn(3, DIM, generator=draw), torch.arange(16) % 4 // 2
    rows = torch.tensor(targets)[:, field]
    video = (centers[rows][:, None] + 0.3 * torch.randn(24, 2, 16, DIM, generator=draw)).half()
    sides = [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]
    examples = [
        Example(f"{i}/{side}", Path(str(i)), (own[side],), box=sides[side])
        for i, own in enumerate(targets)
        for side in (0, 1)
    ]
    task = Task(test=(), train=examples, score=box_map, classes=("a", "b", "c"))
    return task, Batch(examples, video.repeat_interleave(2, 0)[:, None])


def test_a_probe_learns_what_is_in_the_box() -> None:
    task, batch = halves()
    adapter = probe(task, lr=5e-3)
    optimizer = StackedAdamW(adapter.bank, 60)
    for _ in range(60):
        optimizer.zero_grad()
        adapter.training_step(batch, 0)["loss"].backward()
        optimizer.step()
    adapter.eval()
    found = [prediction.value for prediction in adapter.predict(batch.examples, batch.features)]
    targets = [example.target for example in batch.examples]
    assert box_map(found, targets)["mAP"] == 100
    turned = [replace(example, box=boxes.WHOLE) for example in batch.examples]
    blind = [prediction.value for prediction in adapter.predict(turned, batch.features)]
    assert box_map(blind, targets)["mAP"] < 60
    again = probe(task)
    again.load_adapter_state(adapter.adapter_state())
    assert [p.value for p in again.eval().predict(batch.examples, batch.features)] == found


def test_the_views_of_a_video_share_its_box() -> None:
    adapter = probe(boxed(BOX)).eval()
    features = torch.randn(2, 3, 2, 16, 24)
    examples = [Example(str(i), Path(str(i)), (i,), box=box) for i, box in enumerate((BOX, (0.0, 0.0, 0.1, 0.1)))]
    apart = [
        torch.stack([adapter(features[i, v : v + 1], torch.tensor([e.box]))[0, 0].sigmoid() for v in range(3)]).mean(0)
        for i, e in enumerate(examples)
    ]
    for prediction, wanted in zip(adapter.predict(examples, features), apart, strict=True):
        assert prediction.value == pytest.approx(wanted.tolist(), abs=1e-6)


def test_a_task_without_boxes_is_refused_before_anything_is_encoded() -> None:
    with pytest.raises(
        UserError, match=r"^example 'one' has no box, which adapter.head=box asks with: use another head$"
    ):
        probe(boxed(None))


def test_boxes_are_refused_for_linear_probes() -> None:
    with pytest.raises(ValueError, match="boxed=True, .*: only attentive probes have them"):
        Bank([Point()], HeadShape(DIM, CLASSES, boxed=True))


def test_with_layers_a_box_asks_the_encoders_last_ones_and_its_content_is_not_lost() -> None:
    assert probe(boxed(BOX)).feature_spec.layers == 1
    adapter = probe(boxed(BOX), layers=2).eval()
    assert adapter.feature_spec.layers == 2 and adapter.bank.shape == HeadShape(24, 3, 12, layers=2, boxed=True)
    tokens, within = torch.randn(1, 2, 2, 16, 24), torch.tensor([BOX])
    with torch.no_grad():
        for layer in (0, 1):  # where attention and MLP say nothing, what is classified is what lies in the box
            for part in ("out_weight", "out_bias", "down_weight", "down_bias"):
                adapter.bank.stacked[f"{part}{layer}"].zero_()
        content = F.layer_norm(boxes.mean_in(within, tokens[:, 1]), (24,))
        state = adapter.adapter_state()
        expected = F.linear(content, state["classify.1.weight"], state["classify.1.bias"])
        assert torch.allclose(adapter(tokens, within)[0], expected, atol=1e-6)


def test_what_a_boxs_head_costs_is_counted() -> None:
    task = boxed(BOX)
    video = torch.empty(1, 4, 3, 64, 64, device="meta")

    def encode(video: Tensor, **_: Any) -> EncoderOutput:
        tokens = torch.empty(1, 2, 16, 24, device="meta")
        return EncoderOutput(tokens, tokens.mean((1, 2)))

    flops = {
        head: make_adapter("probe", tiny_encoder(), task, head=head).flops(encode, video)
        for head in ("attentive", "box")
    }
    assert flops["box"] == flops["attentive"] + 2 * 16 * 24  # the mean over sixteen fields


# --- the miniature ----------------------------------------------------------------------------------------------------


def test_two_things_are_side_by_side_and_each_is_in_its_box() -> None:
    found = classes.side_by_side(lambda step: {step.thing.color, step.action})
    assert len(found.train) == 400 and len(found.test) == 200 and len(found.classes) == 13
    pairs = list(zip(found.test[::2], found.test[1::2], strict=True))
    assert all(one.video == other.video and not {*one.target} & {*other.target} for one, other in pairs)
    found.prepare_videos([found.test[0]]) if found.prepare_videos else None
    with av.open(str(found.test[0].video)) as container:
        shown = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    middle = shown[len(shown) // 2]
    for example in pairs[0]:
        color = next(found.classes[c] for c in example.target if found.classes[c] in world.COLORS)
        rows, columns = np.nonzero(np.abs(middle - np.array(world.COLORS[color])).sum(-1) < 90)
        assert example.box and len(rows) > 20
        edges = np.array([columns.min(), rows.min(), columns.max(), rows.max()]) / film.SIDE
        assert edges == pytest.approx(np.array(example.box), abs=0.04)


CUT = """
from dataclasses import replace
from evalkit.mini import world
from evalkit.tasks import chimpact

def task(mini=False):
    whole = chimpact.task(mini=True)

    def colors(examples):
        return [replace(e, target=tuple(c for c in e.target if whole.classes[c] in world.COLORS)) for e in examples]

    return replace(whole, train=colors(whole.train[:80]), test=colors(whole.test[:40]), controls=())
"""


@pytest.mark.usefixtures("decoding_here")
def test_the_demo_knows_the_color_in_a_box_better_than_can_be_told_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(CUT, tmp_path, monkeypatch)
    rows = run_folder.load_rows(run)
    film_of = [row.id.partition("/")[0] for row in rows]
    both = {
        name: {c for row, own in zip(rows, film_of, strict=True) if own == name for c in row.target} for name in film_of
    }
    known = [[float(c in both[name]) for c in range(13)] for name in film_of]  # what is in a film, and not in which box
    assert box_map(known, [row.target for row in rows])["mAP"] == 50
    assert run_folder.load(run)["scores"][0]["value"] > 65
