import hashlib
import itertools
import math
import os
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from evalkit.api import Example, Views
from evalkit.datasets import captions
from evalkit.demo import lessons, train_encoder
from evalkit.encoders import load_encoder
from evalkit.language.causal_lm import Continuation, LanguageModel
from evalkit.language.models import load
from evalkit.mini import film, language, world
from evalkit.mini.library import Films
from evalkit.video.sampling import frame_indices


def frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_film_is_a_real_video_of_the_stated_length(tmp_path: Path) -> None:
    story = world.story(random.Random(1), 6, 180.0, 15.0)
    film.write(story, tmp_path / "film.mp4", 2)
    with av.open(str(tmp_path / "film.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert float(stream.duration * stream.time_base) == pytest.approx(180.0, abs=0.5)  # type: ignore[operator]
    assert frames(tmp_path / "film.mp4").shape == (360, film.SIDE, film.SIDE, 3)


def test_the_same_story_gives_the_same_bytes(tmp_path: Path) -> None:
    story = world.story(random.Random(2), 2, 10.0, 5.0)
    digests = []
    for name in ("a.mp4", "b.mp4"):
        film.write(story, tmp_path / name, 4)
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_the_pixels_show_the_named_color_inside_the_stated_box(tmp_path: Path) -> None:
    for seed in range(12):
        story = world.story(random.Random(seed), 1, 4.0, 4.0)
        film.write(story, tmp_path / f"{seed}.mp4", 4)
        shown = frames(tmp_path / f"{seed}.mp4").astype(int)
        for number in (3, 9):
            for thing, (x1, y1, x2, y2) in film.boxes(story.steps[0], number / 16):
                near = np.abs(shown[number] - np.array(world.COLORS[thing.color])).sum(-1) < 90
                rows, columns = np.nonzero(near)
                if thing.color != "white" and len(rows):
                    assert x1 - 0.03 <= columns.min() / film.SIDE and columns.max() / film.SIDE <= x2 + 0.03, (
                        seed,
                        thing,
                    )
                    assert y1 - 0.03 <= rows.min() / film.SIDE and rows.max() / film.SIDE <= y2 + 0.03, (seed, thing)
                assert near.sum() > 20, (seed, number, str(story))


@pytest.mark.parametrize("kind", language.KINDS)
def test_options_differ_in_their_kind_alone(kind: language.Kind) -> None:
    for question in language.questions("test", 30):
        if question.kind != kind:
            continue
        assert len({str(option) for option in question.options}) == 5
        for one, other in itertools.combinations(question.options, 2):
            things = [[(s.thing, s.partner if s.action == "hits" else None) for s in o.steps] for o in (one, other)]
            actions = [[s.action for s in o.steps] for o in (one, other)]
            if kind == "appearance":
                assert actions[0] == actions[1] and things[0] != things[1]
            elif kind == "motion":
                assert [s.thing for s in one.steps] == [s.thing for s in other.steps] and actions[0] != actions[1]
            else:
                assert Counter(map(str, one.steps)) == Counter(map(str, other.steps)) and str(one) != str(other)


def test_a_third_of_the_questions_turns_on_order_alone() -> None:
    kinds = Counter(question.kind for question in language.questions("test", 100))
    assert kinds == {"appearance": 34, "motion": 33, "order": 33}


def test_answers_are_spread_over_the_options_and_cannot_be_guessed_from_likeness() -> None:
    """The option most like the others (a text-only shortcut) is right about as often as chance."""
    questions = language.questions("guess", 600)
    counts = Counter(question.answer for question in questions)
    assert min(counts.values()) > 600 / 5 * 0.7
    right = 0
    for question in questions:
        words = [str(option).split() for option in question.options]
        likeness = [sum(a == b for other in words for a, b in zip(own, other, strict=False)) for own in words]
        right += int(np.argmax(likeness)) == question.answer
    assert right / 600 < 0.28


def test_questions_are_the_same_however_many_are_asked_for() -> None:
    assert language.questions("test", 5) == language.questions("test", 9)[:5]


@pytest.mark.parametrize(("lesson", "misses"), [("steps", 8), ("films", 6)])
def test_a_lesson_asks_for_what_its_film_shows_among_near_misses(lesson: lessons.Lesson, misses: int) -> None:
    task = lessons.task(lesson, films=4)
    stories = [question.story for question in language.questions("train", 4)]
    told = list(map(str, [step for story in stories for step in story.steps] if lesson == "steps" else stories))
    assert [example.choices[example.target] for example in task.train] == told
    assert all(len(set(example.choices)) == misses + 1 for example in task.train)
    assert lessons.task(lesson, films=5).train[: len(told)] == task.train
    assert not {example.video for example in task.train} & {example.video for example in task.test}
    assert {example.target for example in task.test} == set(range(misses + 1))


def test_near_misses_in_the_shapes_have_all_colors_and_actions_of_what_is_told() -> None:
    shapes = re.compile("|".join(world.SHAPES))
    for question in language.questions("train", 20):
        for miss in language.near_misses(random.Random(0), question.story, ["shape"], 4):
            assert miss != str(question.story) and shapes.sub("", miss) == shapes.sub("", str(question.story))


def test_a_lesson_on_a_step_shows_that_step_alone() -> None:
    task = lessons.task("steps", films=20)
    steps = [times for question in language.questions("train", 20) for times in question.story.times()]
    for example, (start, end) in zip(task.train, steps, strict=True):
        (shown,) = frame_indices(np.arange(360) / 2, 180.0, Views("uniform"), 16, example.span)
        assert round(start * 2) <= shown[0] <= shown[-1] < round(end * 2)


def short_stories(n: int) -> list[world.Story]:
    """Films of three steps, the fewest that have orders enough."""
    return [world.story(random.Random(i), 3, 30.0, 5.0) for i in range(n)]


def test_each_step_of_a_film_is_seen_in_its_own_time() -> None:
    for question in language.questions("train", 20):
        counts = train_encoder.shares(question.story, 32)
        assert torch.allclose(counts.sum(-1), torch.ones(6)) and ((counts > 0).sum(0) == 1).all()
        for (start, end), own in zip(question.story.times(), counts, strict=True):
            seconds = own.nonzero().flatten() * 180 / 32
            assert start - 180 / 64 <= seconds.min() <= seconds.max() < end - 180 / 64


def test_steps_are_told_in_order_beside_near_misses_in_the_shape_and_others() -> None:
    stories = short_stories(3)
    told = train_encoder.of_steps(random.Random(0), stories)
    assert told.right == [str(step) for story in stories for step in story.steps]
    assert len(told.wrong) == 4 * len(told.right)
    assert all(wrong != right for i, right in enumerate(told.right) for wrong in told.wrong[4 * i : 4 * i + 4])


def test_words_that_say_the_same_of_another_are_not_told_apart() -> None:
    words = {"a": [1.0, 0.0], "b": [0.0, 2.0], "c": [1.0, 1.0]}
    told = train_encoder.Captions(["a", "b", "a"], ["c", "b"])  # the third says what the first does
    seen = torch.tensor([[3.0, 1.0], [1.0, 1.0], [0.0, 1.0]])

    def embed(texts: list[str]) -> torch.Tensor:
        return torch.tensor([words[text] for text in texts])

    found = train_encoder.contrast(seen, told, embed, torch.tensor(math.log(5.0)))
    cosine = 5 * F.normalize(seen, dim=-1) @ F.normalize(embed([*told.right, *told.wrong]), dim=-1).T
    counted = [[0, 1, 3, 4], [0, 1, 2, 3], [1, 2, 3, 4]]  # of each row all but what says the same
    of_texts = [[0, 1], [0, 1, 2], [1, 2]]
    loss = [-cosine[i, i] + cosine[i, own].logsumexp(0) for i, own in enumerate(counted)]
    loss += [-cosine[i, i] + cosine[own, i].logsumexp(0) for i, own in enumerate(of_texts)]
    assert torch.allclose(found, torch.stack(loss).sum() / 6)


def test_an_encoder_learns_the_words_for_each_step(tiny: Path) -> None:
    encoder: Any = load_encoder(tiny)
    stories = short_stories(8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        video = torch.randint(0, 256, (8, 12, 3, 32, 32), dtype=torch.uint8)
    losses = train_encoder.learn(encoder, video, stories, steps=40, batch=4)
    assert len(losses) == 40 and np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert not encoder.training


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_what_is_offered_of_a_story_is_answered_rightly(steps: int) -> None:
    rng, answers = random.Random(steps), []
    for _ in range(300):
        told = world.story(rng, steps, 60.0, 10.0)
        right = {captions.QUESTION: str(told), **(dict(language.inquiries(told.steps[0])) if steps == 1 else {})}
        question, letter = language.offered(rng, told, by_letter=True)
        asked, _, options = question.partition(" Options: ")
        shown = dict(re.findall(r"([A-E]): (.+?)(?= [A-E]:|$)", options))
        assert 2 <= len(shown) == len(set(shown.values())) and shown[letter] == right[asked]
        question, answer = language.offered(rng, told, by_letter=False)
        asked, _, option = question.removesuffix("?").partition(" Is it: ")
        assert answer == ("yes" if option == right[asked] else "no")
        answers += [letter, answer]
    assert Counter(answers).keys() == {*"ABCDE", "yes", "no"}


@pytest.mark.parametrize(
    ("lesson", "parts"), [("told_steps", 6), ("told_parts", 9), ("told_films", 1), ("told_both", 2)]
)
def test_what_is_told_is_seen_and_of_films_that_are_not_chosen_or_tested_on(lesson: lessons.Lesson, parts: int) -> None:
    task = lessons.task(lesson, films=70)
    videos = [{example.video for example in split} for split in (task.test, task.val, task.train)]
    assert list(map(len, videos)) == [20, 40, 10] and len(set.union(*videos)) == 70
    assert len(task.train) == 10 * parts and len({example.id for example in task.train}) == 10 * parts
    story = language.questions("train", 61)[60].story
    for example in task.train[:parts]:
        assert example.text == captions.QUESTION
        start, end = example.span or (0.0, 180.0)
        seen = [
            str(step) for step, (first, last) in zip(story.steps, story.times(), strict=True) if start < last <= end
        ]
        (told,) = example.target
        assert [part.removeprefix(f"{world.ORDINALS[i]} ") for i, part in enumerate(told.split(", "))] == seen
    frames, seconds = {"told_steps": (16, 30), "told_parts": (32, 75)}.get(lesson, (None, 180))
    assert task.views.frames == frames and 1.8 < seconds / (frames or 64) < 3  # apart


def test_films_are_made_when_first_wanted_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    films = Films("films", language.clips("films", 3), fps=4)
    examples = [Example(path.stem, path) for path in films.paths]
    assert not tmp_path.joinpath("mini").exists()
    films.prepare_videos(examples[:2])
    assert [path.is_file() for path in films.paths] == [True, True, False]
    times = [os.stat(path).st_mtime_ns for path in films.paths[:2]]
    films.paths[1].unlink()
    films.prepare_videos([*examples, Example("other", tmp_path / "not_ours.mp4")])
    again = [os.stat(path).st_mtime_ns for path in films.paths]
    assert again[0] == times[0] and again[1] > times[1]
    assert not list(films.paths[0].parent.glob(".*"))


def test_every_sentence_is_in_the_vocabulary(vocabulary: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(vocabulary))
    for text in language.documents(7, 200):
        assert pieces.unk_id() not in pieces.encode(text)
        assert pieces.decode(pieces.encode(text)) == " ".join(text.split())


@pytest.mark.parametrize(("by_letter", "chance"), [(True, 0.36), (False, 0.5)])
def test_the_language_model_chooses_by_letter_and_says_yes_or_no_of_a_story_told_in_words(
    by_letter: bool, chance: float
) -> None:
    model, tokenizer = load("")
    reader = LanguageModel(model, tokenizer)
    rng, right = random.Random("told"), 0
    answers = list("ABCDE") if by_letter else ["yes", "no"]
    for _ in range(50):
        told = world.story(rng, 1, 180.0, 15.0)
        question, answer = language.offered(rng, told, by_letter)
        asked = [Continuation(0, f"{told}. Question: {question} Answer:", one) for one in answers]
        likelihoods = [likelihood.logprob for likelihood in reader.loglikelihoods(asked)]
        right += answers[likelihoods.index(max(likelihoods))] == answer
    assert right / 50 > chance + 0.4
