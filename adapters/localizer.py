"""Segments in time from a sequence of windows: G-TAD or ActionFormer on a frozen encoder's features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from evalkit.api import Batch, Encoder, Example, FeatureSpec, Prediction, Task, pooled_dim
from evalkit.errors import UserError
from evalkit.heads.adapter import AdapterSettings, Training
from evalkit.heads.flops import trained_flops
from evalkit.heads.head import QueryPool, attention_heads
from evalkit.heads.optim import Trained
from evalkit.localization.actionformer import ActionFormer, crop_batch
from evalkit.localization.gtad import GTAD
from evalkit.localization.soft_nms import Candidates, soft_nms, soft_nms_by_class, vote

DECAY = 0.999  # of the running mean of ActionFormer's weights, less in the first steps
CLASSES_PER_SEGMENT = 2  # of the likeliest, that each candidate is given


@dataclass(frozen=True)
class Settings(AdapterSettings):
    """Settings of `adapter=localizer`.

    Attributes:
        head: gtad (https://arxiv.org/abs/1911.11462) or actionformer (https://arxiv.org/abs/2202.07925).
        length: steps that a video's sequence is rescaled to; 0 keeps one step per window, for actionformer; none means
            100 for gtad and 192 for actionformer.
        layers: number of the encoder's last layers whose tokens a learned query reads in turn, as in MLAP; 1 uses the
            pooled vector of each window.
        token_grid: with several layers, the query reads tokens averaged over time and over a grid of this many by this
            many cells; 0 reads all tokens.
        lr: peak learning rate; none means the head's published one: 4e-3 for gtad, 1e-3 for actionformer, 1e-4 for
            actionformer without rescaling.
        weight_decay: weight decay of the matrices; none means 1e-4 for gtad, 0.05 for actionformer.
        epochs: passes over the training videos; none means 10 for gtad, 15 for actionformer, 35 without rescaling.
        batch_size: videos per training step; none means 16, or 2 for actionformer without rescaling.
        segments: segments per video that are kept after soft-NMS.
    """

    TRAINED_WITH: ClassVar[tuple[str, ...]] = ("length", "token_grid")

    head: Literal["gtad", "actionformer"] = "gtad"
    length: Annotated[int, Ge(0)] | None = None
    layers: Annotated[int, Gt(0)] = 1
    token_grid: Annotated[int, Ge(0)] = 0
    lr: Annotated[float, Gt(0)] | None = None
    weight_decay: Annotated[float, Ge(0)] | None = None
    epochs: Annotated[int, Ge(0)] | None = None
    batch_size: Annotated[int, Gt(0)] | None = None
    segments: Annotated[int, Gt(0)] = 100


class Published(NamedTuple):
    """What a head was published with.

    Attributes:
        training: its rate, decay, epochs and batch size.
        length: steps of its sequences; 0 keeps those of the video.
        sigma: of soft-NMS.
        min_score: of a segment that remains.
        voting: least IoU of the candidates that a segment that remains is moved to the mean of; 0 for none.
    """

    training: Training
    length: int
    sigma: float
    min_score: float = 0.0
    voting: float = 0.0


# https://github.com/frostinassiky/gtad (branch anet); ActionFormer's anet_tsp.yaml and thumos_i3d.yaml.
GTAD_ACTIVITYNET = Published(Training(4e-3, 1e-4, 10, 16), 100, 0.8)
ACTIONFORMER_ACTIVITYNET = Published(Training(1e-3, 0.05, 15, 16), 192, 0.75, 0.001, 0.9)
ACTIONFORMER_THUMOS = Published(Training(1e-4, 0.05, 35, 2), 0, 0.5, 0.001, 0.7)


def published(settings: Settings) -> Published:
    """What the head was published with, where sequences are kept or rescaled as these settings say.

    Where they state a length, or how it is trained, that stands in the place of what was published.
    """
    rule = ACTIONFORMER_THUMOS if settings.length == 0 else ACTIONFORMER_ACTIVITYNET
    if settings.head == "gtad":
        rule = GTAD_ACTIVITYNET
    names = ("lr", "weight_decay", "epochs", "batch_size")
    stated = {name: value for name in names if (value := getattr(settings, name)) is not None}
    length = rule.length if settings.length is None else settings.length
    return rule._replace(training=replace(rule.training, **stated), length=length)


class Localizer(Trained):
    """Features of windows -> [start, end, class, score] of each segment, in seconds, the likeliest first.

    Args:
        head: finds candidates.
        pool: of the tokens of several layers; None where a window is one vector.
        settings: of the adapter.
        rule: what the head was published with, and in its place what the settings say.
        task: with its windows.
        dim: width of the features.
    """

    def __init__(
        self,
        head: GTAD | ActionFormer,
        pool: QueryPool | None,
        settings: Settings,
        rule: Published,
        task: Task,
        dim: int,
    ) -> None:
        super().__init__(rule.training)
        self._mean: list[Tensor] = []  # of the weights so far, while ActionFormer is trained
        self._updates = 0
        assert task.views.window
        self.head, self.pool, self.classes, self.segments = head, pool, task.classes, settings.segments
        self.rule, self.dim, self.given = rule, dim, _given(task)
        self.window, self.stride = task.views.window, task.views.window_stride or task.views.window
        # Of a segment's mean, where neither the head nor a file tells.
        self.classify = nn.Linear(dim, len(task.classes)) if isinstance(head, GTAD) and not self.given else None
        if pool:
            self.feature_spec = FeatureSpec("tokens", settings.layers, 0, settings.token_grid, "float16")

    def forward(self, features: Tensor, windows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Sequences (B, T, D), zeros after the last step of a shorter one, and their lengths (B,).

        Args:
            features: of windows, (B, T, V, E), or tokens (B, T, V, layers, 1, S, D) for a query that pools them.
            windows: of each video.
        """
        values = features.to(self.device)
        if self.pool:
            layers = values.float().flatten(0, 2).flatten(2, 3).unbind(1)  # each (B T V, S, D)
            values = self.pool(layers).unflatten(0, features.shape[:3])
        steps = F.layer_norm(values.float().mean(2), (self.dim,))  # encoders differ in the scale of their vectors
        lengths = torch.tensor(windows, device=self.device)
        length = self.rule.length
        if not length:
            return steps, lengths
        rescaled = [F.interpolate(steps[i, :n].mT[None], length, mode="linear") for i, n in enumerate(windows)]
        return torch.cat(rescaled).mT, torch.full_like(lengths, length)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The head's loss; and, where it learns them, that of the classes of each video."""
        sequences, lengths = self(batch.features, batch.windows)
        segments, labels = [], []
        for example, windows, length in zip(batch.examples, batch.windows, lengths.tolist(), strict=True):
            bounds, of_video = self._steps(example, windows, length)
            segments.append(bounds.to(self.device))
            labels.append(of_video.to(self.device))
        if isinstance(self.head, ActionFormer):
            if self.training:
                sequences, lengths, segments, labels = crop_batch(sequences, lengths, segments, labels)
            outputs = self.head(sequences, lengths)
            if self.given:
                labels = [torch.zeros_like(of_video) for of_video in labels]
            return self.head.loss(outputs, segments, labels)
        loss = self.head.loss(self.head(sequences), segments)
        if self.classify and sum(map(len, labels)):
            means = [segment_means(of_video, bounds) for of_video, bounds in zip(sequences, segments, strict=True)]
            loss = loss + F.cross_entropy(self.classify(torch.cat(means)), torch.cat(labels))
        return loss

    def on_train_start(self) -> None:
        if isinstance(self.head, ActionFormer):
            self._mean, self._updates = [weight.detach().clone() for weight in self.parameters()], 0

    def on_train_batch_end(self, *_: Any) -> None:
        self._updates += 1
        decay = min(DECAY, (1 + self._updates) / (10 + self._updates))
        for mean, weight in zip(self._mean, self.parameters(), strict=False):  # there is none of G-TAD
            mean.lerp_(weight.detach(), 1 - decay)

    def train(self, mode: bool = True) -> Localizer:
        """As of any module; without `mode`, in the course of training, the weights are their running mean."""
        if mode != self.training:
            for k, (mean, weight) in enumerate(zip(self._mean, self.parameters(), strict=False)):
                weight.data, self._mean[k] = mean, weight.data
        super().train(mode)
        return self

    def on_train_end(self) -> None:
        self._mean = []

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The segments of each video, at most as many candidates as `segments` says, of each of its classes."""
        assert features is not None
        windows = [features.shape[1]] * len(examples)
        sequences, lengths = self(features, windows)
        if isinstance(self.head, ActionFormer):
            found = self.head.candidates(self.head(sequences, lengths))
        else:
            found = self.head.candidates(self.head(sequences))
        return [
            Prediction(self._segments(example, sequences[i], windows[i], int(lengths[i]), found[i]))
            for i, example in enumerate(examples)
        ]

    def flops(self, encoder: Any, video: Tensor) -> int | None:
        """Operations of G-TAD on one sequence; None of others."""
        if isinstance(self.head, ActionFormer) or self.pool:
            return None  # which look at values; or at each window
        return trained_flops(self.head, torch.empty(1, self.rule.length, self.dim, device="meta"))

    def _segments(
        self, example: Example, sequence: Tensor, windows: int, length: int, found: Candidates
    ) -> list[list[Any]]:
        """[start, end, class, score] of each candidate after soft-NMS, the likeliest first."""
        rule = self.rule
        rows: list[tuple[list[float], str, float]] = []
        if isinstance(self.head, ActionFormer) and not self.given:
            bounds, scores, places = soft_nms_by_class(found, rule.sigma, self.segments, rule.min_score)
            for place in sorted({*places.tolist()}):
                of_class = places == place
                moved = self._voted(bounds[of_class], Candidates(found.bounds, found.scores[:, place]))
                of_scores = scores[of_class].tolist()
                rows += [(bound, self.classes[place], score) for bound, score in zip(moved, of_scores, strict=True)]
        else:
            alone = Candidates(found.bounds, found.scores.flatten())
            kept, scores = soft_nms(*alone, rule.sigma, self.segments, rule.min_score)
            moved = self._voted(alone.bounds[kept], alone)
            classes = self._classes(sequence, moved) if self.classify else [example.class_scores] * len(moved)
            for bound, score, of_segment in zip(moved, scores.tolist(), classes, strict=True):
                for label, likely in of_segment.items():
                    product = score * likely
                    rows.append((bound, label, product**0.5 if isinstance(self.head, ActionFormer) else product))
        if not rows:
            return []
        seconds = self._seconds(example, torch.tensor([bound for bound, *_ in rows]), windows, length).tolist()
        segments = [
            [round(start, 3), round(end, 3), label, float(f"{score:.6g}")]
            for (start, end), (_, label, score) in zip(seconds, rows, strict=True)
        ]
        return sorted(segments, key=lambda segment: -segment[3])

    def _classes(self, sequence: Tensor, bounds: Sequence[Sequence[float]]) -> list[dict[str, float]]:
        """The likeliest classes of each segment in steps, by the mean of its features."""
        assert self.classify
        if not bounds:
            return []
        logits = self.classify(segment_means(sequence, torch.tensor(bounds, device=sequence.device)))
        scores, places = logits.softmax(-1).topk(min(CLASSES_PER_SEGMENT, len(self.classes)))
        return [
            {self.classes[place]: score for place, score in zip(of_places, of_scores, strict=True)}
            for of_places, of_scores in zip(places.tolist(), scores.tolist(), strict=True)
        ]

    def _voted(self, bounds: Tensor, candidates: Candidates) -> list[list[float]]:
        """Segments that remain, moved to the mean of the candidates that overlap them where the head has it so."""
        moved = vote(bounds, candidates, self.rule.voting) if self.rule.voting and len(bounds) else bounds
        return moved.tolist()

    def _steps(self, example: Example, windows: int, length: int) -> tuple[Tensor, Tensor]:
        """The annotated segments of a video in steps (n, 2), and their classes (n,); those without a length are out.

        A window's step is the stride around its middle.
        """
        assert example.span
        rows = [(start, end, self.classes.index(label)) for start, end, label in example.target]
        seconds = torch.tensor([row[:2] for row in rows], dtype=torch.float64).reshape(-1, 2)
        steps = (seconds - example.span[0] - self.window / 2) / self.stride + 0.5
        bounds = (steps * length / windows).clamp(0, length).float()
        labels = torch.tensor([row[2] for row in rows], dtype=torch.long)
        long = bounds[:, 0] < bounds[:, 1]
        return bounds[long], labels[long]

    def _seconds(self, example: Example, bounds: Tensor, windows: int, length: int) -> Tensor:
        """Seconds (n, 2) of bounds in steps, within the video."""
        assert example.span
        steps = bounds.double() * windows / length
        return ((steps - 0.5) * self.stride + self.window / 2 + example.span[0]).clamp(*example.span)


def segment_means(sequence: Tensor, bounds: Tensor) -> Tensor:
    """The mean of a sequence (T, D) over each segment (n, 2) in steps, which may begin and end within one: (n, D)."""
    total = F.pad(sequence.cumsum(0), (0, 0, 1, 0))
    bounds = bounds.clamp(0, len(sequence))
    whole = bounds.floor().long().clamp_max(len(sequence) - 1)
    sums = torch.lerp(total[whole], total[whole + 1], (bounds - whole)[..., None])  # (n, 2, D)
    return (sums[:, 1] - sums[:, 0]) / (bounds[:, 1] - bounds[:, 0]).clamp_min(1e-6)[:, None]


def _given(task: Task) -> bool:
    """Whether a file says which classes the videos have."""
    return bool(task.test) and bool(task.test[0].class_scores)


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> Localizer:
    """Finds segments in the sequence of a video's windows, by G-TAD or ActionFormer on frozen features.

    G-TAD finds candidates without a class. Each is given the two likeliest classes of its video by a file of the task's
    (data.video_classes), as G-TAD's code does. Without one it is given its own two, by a linear classifier of the mean
    of its features, which is trained with the head on the annotated segments. ActionFormer has classes of its own,
    unless there is such a file. It learns from random parts of sequences, and is chosen and tested with the running
    mean of its weights, as its code has it; in the first steps the mean is of fewer, which short training needs.
    Vectors are normalized first, since encoders differ in their scale.

    VideoPrism and VideoGLUE print G-TAD with a sequence of 100 steps, AdamW with a cosine schedule, 10 epochs and
    batches of 32; learning rate and weight decay are G-TAD's own here.

    Raises:
        UserError: the task has no windows or no classes, or a setting does not fit.
    """
    (settings,) = points
    if not task.views.window:
        raise UserError("adapter=localizer reads a sequence of windows; this task's videos are one clip (clip.window=)")
    if not task.classes:
        raise UserError("adapter=localizer needs a task with classes; this task has none")
    if settings.head == "gtad" and settings.length == 0:
        raise UserError("adapter.length=0: gtad reads sequences of one length; use adapter.length=100")
    if settings.layers == 1 and settings.token_grid:
        raise UserError(f"adapter.token_grid={settings.token_grid} has no effect with adapter.layers=1")
    rule = published(settings)
    several = settings.layers > 1
    dim = encoder.dim if several else pooled_dim(encoder)
    pool = QueryPool(dim, attention_heads(dim), settings.layers) if several else None
    classes = 1 if _given(task) else len(task.classes)
    head: GTAD | ActionFormer
    if settings.head == "gtad":
        head = GTAD(dim, rule.length)
    elif rule.length:
        head = ActionFormer(dim, classes, 256, (7, 7, 7, 7, 7, 0), rule.length, 200.0, 0.1, 2.0, 0.001)
    else:
        head = ActionFormer(dim, classes)
    return Localizer(head, pool, settings, rule, task, dim)
