"""(predictions, targets) -> scores, their bootstrap intervals and significance; text/ for captions and answers.

What stands here is public: results name a score function as `evalkit.metrics:NAME`, wherever its module lies.
"""

from evalkit.metrics.average_precision import (
    box_map,
    chance_map,
    charades_map,
    foreground_map,
    multilabel_map,
    pr_auc,
    top1_map,
)
from evalkit.metrics.classification import (
    accuracy,
    class_mean_recall5,
    macro_accuracy,
    mini_verb_noun_accuracy,
    top1_top5,
    verb_noun_accuracy,
)
from evalkit.metrics.localization import activitynet_map, ava_map, thumos_map
from evalkit.metrics.representation import representation
from evalkit.metrics.retrieval import mean_retrieval, retrieval
from evalkit.metrics.text.captions import captions, captions_meteor
from evalkit.metrics.text.dense import dense, dense_by_video, dense_by_video_meteor, dense_meteor
from evalkit.metrics.text.exact_match import exact_match
from evalkit.metrics.text.paragraph import paragraph, paragraph_meteor
from evalkit.metrics.text.wups import wups, wups_untagged

__all__ = [
    "accuracy",
    "activitynet_map",
    "ava_map",
    "box_map",
    "captions",
    "captions_meteor",
    "chance_map",
    "charades_map",
    "class_mean_recall5",
    "dense",
    "dense_by_video",
    "dense_by_video_meteor",
    "dense_meteor",
    "exact_match",
    "foreground_map",
    "macro_accuracy",
    "mean_retrieval",
    "mini_verb_noun_accuracy",
    "multilabel_map",
    "paragraph",
    "paragraph_meteor",
    "pr_auc",
    "representation",
    "retrieval",
    "thumos_map",
    "top1_map",
    "top1_top5",
    "verb_noun_accuracy",
    "wups",
    "wups_untagged",
]
