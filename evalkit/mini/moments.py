"""Long films of the mini world: single events with nothing in between."""

from __future__ import annotations

import random

from evalkit.api import Example
from evalkit.datasets.files import LabeledSplits
from evalkit.mini import world
from evalkit.mini.classes import ALONE
from evalkit.mini.library import Films

TRAIN, FILMS = 80, 120
SECONDS = 48.0
MOMENTS = 3  # in each film
CYCLE_SECONDS = 4.0


def moments() -> LabeledSplits:
    """Films of three moments, each of 6 to 12 s and with an action of its own, which is its class.

    A target is [start, end, action] of each, in seconds.
    """
    films = Films("moments", [_story(random.Random(f"moments {i}")) for i in range(FILMS)], fps=8)
    examples = []
    for path, story in zip(films.paths, films.stories, strict=True):
        steps = zip(story.times(), story.steps, strict=True)
        target = [[start, end, step.action] for (start, end), step in steps if step.action != world.NOTHING]
        examples.append(Example(path.stem, path, target, (0.0, story.seconds)))
    return LabeledSplits(examples[:TRAIN], examples[TRAIN:], tuple(sorted(ALONE)), films.prepare_videos)


def _story(rng: random.Random) -> world.Story:
    """Moments with gaps before, between and after them, of 2 s and more."""
    lengths = [round(rng.uniform(6, 12), 1) for _ in range(MOMENTS)]
    left = SECONDS - sum(lengths) - 2.0 * (MOMENTS + 1)
    cuts = sorted(rng.uniform(0, left) for _ in range(MOMENTS))
    gaps = [2.0 + round(b - a, 1) for a, b in zip([0.0, *cuts], [*cuts, left], strict=True)]
    actions = rng.sample(ALONE, MOMENTS)
    drawn = world.story(rng, MOMENTS, SECONDS, CYCLE_SECONDS)
    steps = []
    for step, action, seconds, gap in zip(drawn.steps, actions, lengths, gaps, strict=False):
        nothing = world.Step(step.thing, world.NOTHING, step.partner, gap, 1, 0.5)
        cycles = max(1, round(seconds / CYCLE_SECONDS))
        steps += [nothing, world.Step(step.thing, action, step.thing, seconds, cycles, step.place)]
    last = drawn.steps[-1]
    steps.append(world.Step(last.thing, world.NOTHING, last.partner, gaps[-1], 1, 0.5))
    return world.Story(tuple(steps), drawn.background)
