"""What encoders were trained on, and which tasks share videos with that."""

import pytest

from evalkit.datasets import training_data
from evalkit.errors import UserError
from evalkit.weights import presets


@pytest.mark.parametrize(
    ("task", "trained_on", "seen"),
    [
        ("kinetics400", {"kinetics400": "labels", "webvid": "captions"}, "kinetics400 (labels)"),
        ("kinetics400_10shot", {"kinetics400": "videos"}, "kinetics400 (videos)"),
        ("kinetics600", {"kinetics400": "labels"}, "kinetics400 (labels)"),
        ("kinetics400", {"kinetics700": "data"}, "kinetics700"),
        ("vatex_caption", {"kinetics600": "labels"}, "kinetics600 (labels)"),
        ("ava_kinetics", {"kinetics700": "labels", "ava": "labels"}, "kinetics700 (labels), ava (labels)"),
        ("ava", {"kinetics700": "labels"}, ""),
        ("ssv2_temporal", {"ssv2": "labels"}, "ssv2 (labels)"),
        ("activitynet", {"activitynet_captions": "captions"}, "activitynet_captions (captions)"),
        ("activitynet_qa", {"activitynet_captions": "captions"}, ""),
        ("msrvtt", {"msvd": "captions", "webli": "captions"}, ""),
        ("ssv2", {}, ""),
        ("ssv2@mini", {"ssv2": "labels"}, ""),  # generated videos
        ("ssv2_events@mini", {"ssv2@mini": "labels"}, "ssv2@mini (labels)"),
    ],
)
def test_a_task_is_touched_by_data_sets_that_share_videos_with_it(
    task: str, trained_on: dict[str, str], seen: str
) -> None:
    assert training_data.in_words(training_data.seen(task, trained_on)) == seen


def test_a_word_says_what_of_which_data_sets_was_used() -> None:
    parsed = training_data.parse("kinetics400:labels,webvid:captions, youcook2")
    assert parsed == {"kinetics400": "labels", "webvid": "captions", "youcook2": "data"}
    assert training_data.parse("none") == {} and training_data.parse("ssv2@mini:videos") == {"ssv2@mini": "videos"}
    assert training_data.parse(training_data.in_word(parsed)) == parsed and training_data.in_word({}) == "none"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("kinetcs400", "there is no task 'kinetcs400'. Did you mean 'kinetics400'?"),
        ("ssv2:label", "'ssv2:label': wanted the name of a data set, alone or with one of :labels, :captions, "),
        ("ssv2,", "'': wanted the name of a data set"),
        ("SSv2", "'SSv2': wanted the name of a data set"),
        ("ssv2,ssv2:labels", "ssv2 is given twice"),
    ],
)
def test_a_wrong_word_is_told(word: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        training_data.parse(word)
    assert str(caught.value).startswith(f"trained_on={word}: {message}")


@pytest.mark.parametrize("name", sorted(presets.presets()))
def test_presets_name_data_sets_as_the_words_do(name: str) -> None:
    card = presets.card(presets.presets()[name])
    for trained_on in (card.trained_on, *card.others.values()):
        assert training_data.parse(training_data.in_word(trained_on)) == trained_on


def test_a_checkpoint_is_known_by_its_preset_or_its_model_on_the_hub() -> None:
    assert presets.trained_on("xclip_base") == {"wit": "captions", "kinetics400": "labels"}
    assert presets.trained_on("microsoft/xclip-base-patch32@main") == presets.trained_on("xclip_base")
    assert presets.trained_on("videomae_huge") == {"kinetics400": "labels"}
    assert presets.trained_on("MCG-NJU/videomae-base-finetuned-ssv2") == {"ssv2": "labels"}
    assert presets.trained_on("facebook/vjepa2-vitg-fpc64-384-ssv2") == presets.trained_on("vjepa2_giant_384")
    assert presets.trained_on("random:xclip_base") == {} and presets.trained_on("my/own") is None
