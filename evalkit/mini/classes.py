"""The mini world for tasks with classes: two sets of films, which the tasks label each in its own way."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence, Set
from dataclasses import replace

from evalkit.api import Example
from evalkit.datasets.files import LabeledSplits, Span
from evalkit.localization.key_frames import key_frame_name
from evalkit.localization.spatiotemporal import BoxSplits
from evalkit.mini import film, language, world
from evalkit.mini.library import Films

TRAIN, FILMS = 200, 300
ALONE = world.ACTIONS[:7]  # of one thing that stays as it is
REVERSIBLE = world.ACTIONS[:6]  # each is another one backwards
ORDERED = ("red", "green", "blue")
CYCLES = 3  # odd, so that a film is in the middle of one in its own middle
HELD_OUT = 20  # films of train to choose on, where the key frames of the test are asked otherwise than in training
MIDDLE = 5.0  # second of a film's key frame

Detected = tuple[float, float, float, float, float]


def one_step(
    label: Callable[[world.Step], str], actions: Sequence[str] = world.ACTIONS, fold: int = 1
) -> LabeledSplits:
    """Ten-second films of one thing doing one of these actions, a class for each label.

    Args:
        label: the class of a film.
        actions: films of others are left out.
        fold: 1, 2 or 3: the last third of the films is tested on, the second, or the first.
    """
    films = Films("kinetics400", language.clips("kinetics400", FILMS), fps=8)
    steps = [story.steps[0] for story in films.stories]
    labels = [label(step) if step.action in actions else None for step in steps]
    classes = tuple(sorted({name for name in labels if name is not None}))
    targets = [None if name is None else classes.index(name) for name in labels]
    return _labeled(films, targets, classes, FILMS - fold * (FILMS - TRAIN))


def still(label: Callable[[world.Step], str]) -> LabeledSplits:
    """One frame from the middle of each film of `one_step`, a class for each label.

    Args:
        label: the class of a film.
    """
    splits = one_step(label, ALONE)
    train, test = (
        [replace(example, span=(MIDDLE, MIDDLE + 1 / 8)) for example in split] for split in (splits.train, splits.test)
    )
    return splits._replace(train=train, test=test)


def three_steps(label: Callable[[world.Story], Set[str]]) -> LabeledSplits:
    """Twelve-second films of a red, a green and a blue thing in any order, each in an action of its own.

    Args:
        label: all classes of a film.
    """
    films = Films("three-steps", [_in_order(random.Random(f"three-steps {i}")) for i in range(FILMS)], fps=8)
    labels = [label(story) for story in films.stories]
    classes = tuple(sorted(set().union(*labels)))
    return _labeled(films, [tuple(sorted(map(classes.index, names))) for names in labels], classes)


def seen(story: world.Story) -> set[str]:
    """The shapes and the motions of a story."""
    return {word for step in story.steps for word in (step.thing.shape, step.action)}


def in_order() -> LabeledSplits:
    """The films of `three_steps`, a class per order of their colors."""
    rows = three_steps(lambda story: {", ".join(step.thing.color for step in story.steps)})
    train, test = ([replace(row, target=row.target[0]) for row in split] for split in (rows.train, rows.test))
    return rows._replace(train=train, test=test)


def side_by_side(label: Callable[[world.Step], Set[str]]) -> LabeledSplits:
    """Ten-second films of two things of different colors and actions; an example for each, in its box.

    Args:
        label: all classes of a thing.
    """
    films = Films("side-by-side", [_beside(random.Random(f"side-by-side {i}")) for i in range(FILMS)], fps=8)
    things = [step for story in films.stories for step in _halves(story.steps[0])]
    classes = tuple(sorted(set().union(*map(label, things))))
    examples = []
    for path, story in zip(films.paths, films.stories, strict=True):
        step = story.steps[0]
        (_, left), (_, right) = film.boxes(step, 0.5)  # as in the middle of the film
        for name, half, box in zip(("left", "right"), _halves(step), (left, right), strict=True):
            target = tuple(sorted(map(classes.index, label(half))))
            examples.append(Example(f"{path.stem}/{name}", path, target, box=box))
    return LabeledSplits(examples[: 2 * TRAIN], examples[2 * TRAIN :], classes, films.prepare_videos)


def key_frames(label: Callable[[world.Step], Set[str]], truth: bool = False) -> BoxSplits:
    """The films of `side_by_side`, of which the test has a key frame each, with boxes as a detector would give them.

    Args:
        label: all classes of a thing.
        truth: give the test's boxes as they are.
    """
    splits = side_by_side(label)
    train = list(splits.train[: 2 * (TRAIN - HELD_OUT)])
    val, test = (
        [_key_frame(pair, splits.classes, given) for pair in zip(examples[::2], examples[1::2], strict=True)]
        for examples, given in ((splits.train[len(train) :], True), (splits.test, truth))
    )
    return BoxSplits(train, val, test, splits.classes, splits.prepare_videos)


def _key_frame(things: Sequence[Example], classes: Sequence[str], given: bool) -> Example:
    """One example for each object of a film, with its box."""
    name = key_frame_name((things[0].video.stem, MIDDLE))
    placed = [(thing.box, thing.target) for thing in things if thing.box]
    target = [[*box, classes[c]] for box, own in placed for c in own]
    boxes = [(*box, 1.0) for box, _ in placed] if given else _detected(random.Random(name), [box for box, _ in placed])
    return Example(name, things[0].video, target, boxes=tuple(boxes))


def _detected(rng: random.Random, boxes: Sequence[tuple[float, float, float, float]]) -> list[Detected]:
    """Simulated detections: boxes with shifted edges; one in 25 is missing, and some are false with a low score."""
    detected: list[Detected] = []
    for left, top, right, bottom in boxes:
        wide, tall = (right - left) / 10, (bottom - top) / 10
        edges = [
            min(max(edge + rng.uniform(-by, by), 0.0), 1.0)
            for edge, by in ((left, wide), (top, tall), (right, wide), (bottom, tall))
        ]
        score = rng.uniform(0.8, 1.0)
        if rng.random() > 0.04:
            detected.append((edges[0], edges[1], edges[2], edges[3], score))
    if rng.random() < 0.2:
        left, top = rng.uniform(0, 0.7), rng.uniform(0, 0.7)
        detected.append((left, top, left + 0.3, top + 0.3, rng.uniform(0.2, 0.6)))
    return detected


def _halves(step: world.Step) -> tuple[world.Step, world.Step]:
    assert step.beside
    return step, step.beside


def _beside(rng: random.Random) -> world.Story:
    """A story of one step with another beside it, each an action of one thing."""
    left, right = (world.with_other_actions(rng, world.story(rng, 1, 10.0, 10.0), {0}) for _ in range(2))
    step, other = left.steps[0], right.steps[0]
    if step.thing.color == other.thing.color or step.action == other.action:
        return _beside(rng)
    return replace(left, steps=(replace(step, cycles=CYCLES, beside=other),))


def _in_order(rng: random.Random) -> world.Story:
    steps = set(range(len(ORDERED)))
    story = world.with_other_actions(rng, world.story(rng, len(steps), 12.0, 4.0), steps)
    colored = zip(story.steps, rng.sample(ORDERED, len(steps)), strict=True)
    return replace(story, steps=tuple(replace(step, thing=replace(step.thing, color=color)) for step, color in colored))


def verbs_and_nouns() -> LabeledSplits:
    """The films of `one_step`, with two classes each: the motion, and the color after all motions."""
    motions, colors = (one_step(label) for label in (lambda step: step.action, lambda step: step.thing.color))
    train, test = (
        [
            replace(motion, target=(motion.target, len(motions.classes) + color.target))
            for motion, color in zip(of_motion, of_color, strict=True)
        ]
        for of_motion, of_color in ((motions.train, colors.train), (motions.test, colors.test))
    )
    return motions._replace(train=train, test=test, classes=motions.classes + colors.classes)


def last_step(span: Callable[[Span], Span], label: Callable[[str, str], str]) -> LabeledSplits:
    """The films of `three_steps`, of each of which the last step is to be told.

    Args:
        span: what is seen of the film, from the start and end of that step in seconds.
        label: the class of a motion and a color.
    """
    films = Films("three-steps", [_in_order(random.Random(f"three-steps {i}")) for i in range(FILMS)], fps=8)
    last = [story.steps[-1] for story in films.stories]
    labels = [label(step.action, step.thing.color) for step in last]
    classes = tuple(sorted(set(labels)))
    splits = _labeled(films, [classes.index(name) for name in labels], classes)
    spans = dict(zip(films.paths, (span(story.times()[-1]) for story in films.stories), strict=True))
    train, test = ([replace(e, span=spans[e.video]) for e in split] for split in (splits.train, splits.test))
    return splits._replace(train=train, test=test)


def _labeled(
    films: Films, targets: Sequence[int | tuple[int, ...] | None], classes: tuple[str, ...], first: int = TRAIN
) -> LabeledSplits:
    """Labeled films, those from `first` on tested; films without a target are left out."""
    examples = [Example(path.stem, path, target) for path, target in zip(films.paths, targets, strict=True)]
    last = first + FILMS - TRAIN
    parts = [*examples[:first], *examples[last:]], examples[first:last]
    train, test = ([example for example in part if example.target is not None] for part in parts)
    return LabeledSplits(train, test, classes, films.prepare_videos)
