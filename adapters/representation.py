"""Features without labels: RankMe, LiDAR, alignment and uniformity, in place of the task's own score."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from evalkit.api import Encoder, Example, FeatureSpec, Prediction, Task
from evalkit.heads.adapter import Adapter, AdapterSettings
from evalkit.metrics import representation
from evalkit.metrics.representation import packed

logger = logging.getLogger("evalkit")


@dataclass(frozen=True)
class Settings(AdapterSettings):
    """Settings of `adapter=representation`: there are none."""


class Representation(Adapter):
    """Keeps the pooled vectors of all views, which the score is of."""

    feature_spec = FeatureSpec("pooled")

    def __init__(self) -> None:
        super().__init__()
        self.score = representation

    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """The vectors of each example: of its views, and of its windows where it has some."""
        assert features is not None
        vectors = (of.flatten(0, -2).float().cpu().numpy() for of in features)
        return [
            Prediction(packed(of, f"{example.video.name} {example.span}"))
            for example, of in zip(examples, vectors, strict=True)
        ]


def adapter(encoder: Encoder, task: Task, points: Sequence[Settings]) -> Representation:
    """Scores the features themselves without labels: RankMe, LiDAR, alignment and uniformity (evalkit/metrics).

    RankMe (https://arxiv.org/abs/2210.02885), LiDAR (https://arxiv.org/abs/2312.04000; its classes are videos),
    alignment and uniformity (https://arxiv.org/abs/2005.10242) of the pooled vectors of the test videos. Examples
    without a public answer count, too.
    """
    if task.views.clips * task.views.crops == 1 and not task.views.window:
        logger.info("lidar and alignment compare views of a video, of which there is one: clip.clips=4 gives more")
    return Representation()
