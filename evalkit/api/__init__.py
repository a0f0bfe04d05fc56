"""The types that all packages of evalkit share: tasks, examples, clips, encoders, batches and predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from annotated_types import Gt

from evalkit.api.clip import Center as Center
from evalkit.api.clip import Clip as Clip
from evalkit.api.clip import Interpolation as Interpolation
from evalkit.api.clip import Resize as Resize
from evalkit.api.data import Data as Data
from evalkit.api.encoder import Encoder as Encoder
from evalkit.api.encoder import EncoderOutput as EncoderOutput
from evalkit.api.encoder import FeatureSpec as FeatureSpec
from evalkit.api.encoder import as_texts as as_texts
from evalkit.api.encoder import can_mask as can_mask
from evalkit.api.encoder import check_text as check_text
from evalkit.api.encoder import has_match as has_match
from evalkit.api.encoder import has_text as has_text
from evalkit.api.encoder import pooled_dim as pooled_dim
from evalkit.api.loading import Loading as Loading
from evalkit.api.loading import Positions as Positions
from evalkit.errors import UserError as UserError

if TYPE_CHECKING:
    from torch import Tensor

    from evalkit.heads.adapter import Adapter as Adapter
    from evalkit.heads.adapter import AdapterSettings as AdapterSettings
    from evalkit.heads.adapter import Training as Training

Sampling = Literal["uniform", "segments", "linspace", "middle", "interleaved", "fps", "dense", "leading"]


@dataclass(frozen=True)
class Augment:
    """Augmentation of training views.

    A view depends only on the video's name, the span, the number of the view and the run's seed, so each distinct view
    is decoded and encoded once. A view has one crop, and one clip unless `all_clips`, whatever `Views` is for the test.

    Attributes:
        views: number k of distinct views of each training clip; epoch e trains on view e mod k.
        area: smallest and largest area of the random crop as a share of the frame, the same for all frames; (1, 1)
            takes the center crop instead, as in a test with one crop.
        aspect: smallest and largest ratio of the crop's width to its height, uniform on a logarithmic scale.
        flip: mirror half of the views horizontally.
        time: draw the clip's start (`dense`, `fps`), or a moment within each segment (`uniform`, `segments`).
        all_clips: a view has all clips of `Views`, for an adapter that reads them together; each has its own crop and a
            random start in its own part of the span.
        randaugment: RandAugment's magnitude, 0 to 10, and its standard deviation per operation
            (evalkit/video/randaugment.py); None for no RandAugment.

    Raises:
        ValueError: there is no view, or the bounds are none.
    """

    views: int = 1
    area: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    time: bool = True
    all_clips: bool = False
    randaugment: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError(f"views={self.views}: wanted at least 1")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area={self.area}: wanted the smallest and the largest share, above 0 and up to 1")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect={self.aspect}: wanted the smallest and the largest ratio, above 0")
        if self.randaugment and not (0 <= self.randaugment[0] <= 10 and 0 <= self.randaugment[1] < math.inf):
            raise ValueError(f"randaugment={self.randaugment}: wanted a magnitude of 0 to 10, and its deviation")


@dataclass(frozen=True)
class Views:
    """How a task samples clips from a video: which frames, and which crops.

    With a span of duration d (the whole video if an example has none) and F frames, a clip contains:
      * `uniform`: the frames shown at k d / F, k = 0 .. F-1 (the start of each of F equal segments; VideoPrism);
      * `segments`: the frame in the middle of each of F equal segments (TSN; VideoGLUE on SSv2);
      * `linspace`: of the span's T frames, number k (T - 1) // (F - 1), including the first and the last (Perception
        Encoder and most video language models); only the first if F is 1;
      * `middle`: of the span's T frames, the middle one of frames k T // F up to (k + 1) T // F - 1, the earlier of two
        (InternVideo2); if the span has fewer than F frames, each once and then the last one repeated;
      * `interleaved`: of the span's T frames, number (k C + c) T // (F C) in clip c of C: each clip covers the span and
        starts 1/C of a step after the previous one (VideoMAE, UMT and InternVideo2 on SSv2);
      * `fps`: the frames shown at k / fps from the span's start (LongViViT); a span shorter than F / fps repeats its
        last frame;
      * `dense`: every `stride`-th frame of the source, with clips starting evenly spaced over the span (VideoGLUE); a
        span shorter than F x stride frames repeats its last frame. If the span is a single moment, frame F // 2 of each
        clip is the one shown then, and the first and last frames are repeated beyond the ends of the video;
      * `leading`: of the span's T frames, the first F of every (T // F)-th, so 16 of 31 are the first 16 (MVEB); a span
        shorter than F frames is repeated from its start.

    Attributes:
        sampling: how frames are chosen: uniform, segments, linspace, middle, interleaved, fps, dense or leading.
        frames: frames per clip; None means the encoder's default.
        fps: frames per second, for `fps`.
        stride: step in source frames, for `dense`.
        clips: temporal views, evenly spaced; except for `fps`, `dense` and `interleaved`, the span is divided into this
            many parts.
        crops: spatial views: 1 is the center, 3 are start, center and end along the longer side.
        resize: `crop` scales the shorter side to `size` / `share` and crops a square; `squash` scales both sides to
            `size`; `squash_crop` scales both to `size` / `share` and crops; None means the encoder's default.
        size: height and width in pixels; None means the encoder's default.
        share: for crops, the crop's side as a share of the scaled side, above 0 and up to 1: 0.875 scales the shorter
            side to 256 pixels for a `size` of 224. 1 with `resize` None means the encoder's default.
        window: length in seconds of the windows that an example's span is divided into, each of which is sampled,
            encoded and stored separately (evalkit.video.sampling.windows). None means one clip for the whole span.
        window_stride: seconds from the start of one window to the next; None means `window`.
    """

    sampling: Sampling = "uniform"
    frames: Annotated[int, Gt(0)] | None = None
    fps: Annotated[float, Gt(0)] = 1.0
    stride: Annotated[int, Gt(0)] = 1
    clips: Annotated[int, Gt(0)] = 1
    crops: Literal[1, 3] = 1
    resize: Resize | None = None
    size: Annotated[int, Gt(0)] | None = None
    share: float = 1.0
    window: Annotated[float, Gt(0)] | None = None
    window_stride: Annotated[float, Gt(0)] | None = None


@dataclass(frozen=True)
class Example:
    """One thing to predict about one video.

    Attributes:
        id: unique in its split.
        video: path of the file.
        target: the right answer; None if it is not public.
        span: start and end in seconds, equal for a moment, as a key frame is; None means the whole video. With windows,
            the stretch that they cover.
        text: a question, or a caption.
        choices: the options of a multiple-choice question, in order.
        kind: scores are also given per kind; empty means none.
        box: what of the frame is asked about, in the middle of the span: left, top, right and bottom as shares of its
            width and height, 0..1; None means all of it.
        class_scores: how likely each class is in the video, 0..1 by name, from elsewhere; empty means unknown.
        boxes: of a key frame in the middle of the span, all that is asked about: left, top, right and bottom as in
            `box`, and the detector's score, 0..1 (1 where the box is given); may be none. None means no key frame. The
            prediction is a list of [left, top, right, bottom, class name, score], the target one without the scores.
    """

    id: str
    video: Path
    target: Any = None
    span: tuple[float, float] | None = None
    text: str = ""
    choices: tuple[str, ...] = ()
    kind: str = ""
    box: tuple[float, float, float, float] | None = None
    class_scores: Mapping[str, float] = field(default_factory=dict, hash=False)
    boxes: tuple[tuple[float, float, float, float, float], ...] | None = None


# A score is a value per example in 0..1, whose mean in percent is the score; or one number over the split, of which
# each example may know its part (evalkit.metrics.bootstrap.AdditiveScore, ReweightedScore).
Score = Callable[[Sequence[Any], Sequence[Any]], Mapping[str, "float | Sequence[float]"]]


@dataclass(frozen=True)
class Task:
    """A benchmark: its examples, its protocol and its score.

    The module that makes it may say `ADAPTER = "name"`: the adapter that joins encoder and task, else `probe`; and
    `DATA = Data(...)`: what of it is known without the files.

    Attributes:
        test: scored once, after all choices are made.
        score: a module-level function of (predictions, targets), both in the order of the labeled test examples.
            Its first entry is the headline, of which more is better. A prediction of None stands for a failed example
            and counts as wrong; a target put in place of a prediction counts as right.
        train: examples to fit the adapter on; empty means zero-shot.
        val: examples to choose on; empty means a seeded tenth of train.
        views: which frames and crops.
        augment: how training views differ; None means that the adapter is trained on the same views as it is tested on.
        classes: class names; a target is an index into them, or a tuple of indices where several may be right.
        protocol: the name of the protocol, where there are several.
        adapter: whose settings `settings` are, where the protocol has another adapter than its module names.
        settings: adapter settings that the protocol prescribes, by name.
        mixture: weights by kind: each training batch is of examples of one kind, drawn by these; empty: of all.
        controls: which controls apply: blind, shuffled, single_frame, option_order.
        chance: the headline's chance level, in the headline's unit (0..100 for rates).
        split: the benchmark's name of the split that is tested.
        fold: number of the split, where a benchmark has several and its score is their mean; 0 where it has one.
        shots: fit on so many examples of each class, drawn by the seed; 0: on all. `trainer.shots` goes before it.
        sizes: the published number of examples in `train`, `val` and `test`, by the paper and then by the files.
        version: raised when scores stop being comparable.
        license: of the data.
        source: where data and protocol come from.
        published: headline numbers from papers, by the name of their row.
        prepare_videos: makes or fetches the videos of examples, just before they are read; None: they are there.
        quick_score: where `score` is slow, a function of its kind and headline that is not, and may start in the
            background what `score` needs; called first of all, and where the headline alone counts. None: `score`.
        submission: writes the official submission files into a folder from {id: prediction}; None where there is none.
    """

    test: Sequence[Example]
    score: Score
    train: Sequence[Example] = ()
    val: Sequence[Example] = ()
    views: Views = Views()
    augment: Augment | None = None
    classes: tuple[str, ...] = ()
    class_texts: tuple[str, ...] = ()
    protocol: str = ""
    adapter: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    mixture: Mapping[str, float] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    chance: float = 0.0
    split: str = "test"
    fold: int = 0
    shots: int = 0
    sizes: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    version: int = 1
    license: str = ""
    source: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    prepare_videos: Callable[[Sequence[Example]], None] | None = None
    quick_score: Score | None = None
    submission: Callable[[Mapping[str, Any], Path], Sequence[Path]] | None = None


class Prediction(NamedTuple):
    """An adapter's prediction for one example: the value that is scored, and details to keep as JSON, or None."""

    value: Any
    detail: dict[str, Any] | None = None


@dataclass(frozen=True)
class Batch:
    """Examples and the features of their videos: (B, V, ...), one row per example, with V views each.

    An adapter that trains the encoder gets uint8 video (B, V, T, C, H, W) instead while it is fitted. Where a video is
    a sequence of windows, features are (B, windows, V, ...), with zeros after the last window of a shorter one.

    Attributes:
        windows: of each example; empty where a video is one clip.
        share: of a training batch that these examples are, where other processes have the rest; 0: they do not count.
    """

    examples: Sequence[Example]
    features: Tensor
    windows: Sequence[int] = ()
    share: float = 1.0

    def to(self, device: Any) -> Batch:
        """The batch with its features on a device; Lightning calls this."""
        return replace(self, features=self.features.to(device, non_blocking=self.features.is_pinned()))


def __getattr__(name: str) -> Any:
    """Imports `Adapter`, `AdapterSettings` and `Training` on first use, because importing torch is slow."""
    if name in ("Adapter", "AdapterSettings", "Training"):
        from evalkit.heads import adapter

        return getattr(adapter, name)
    raise AttributeError(f"module 'evalkit.api' has no attribute {name!r}")
