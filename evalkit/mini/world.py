"""What happens in a mini video: colored shapes that move, grow, blink, change and collide, one step after another.

Appearance (color and shape) and motion (the action) are drawn independently of each other, so that a question can
turn on one alone, or on the order of steps alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

# Raised whenever a seed no longer gives the same film: films are kept on disk under it.
VERSION = 1

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 40, 40),
    "green": (40, 175, 60),
    "blue": (50, 80, 235),
    "yellow": (240, 215, 40),
    "purple": (150, 50, 200),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
ACTIONS = ("moves left", "moves right", "moves up", "moves down", "grows", "shrinks", "blinks", "hits", "turns")
NOTHING = "nothing"  # of a step that shows the background alone; never drawn among the others

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


@dataclass(frozen=True)
class Thing:
    """A colored shape."""

    color: str
    shape: str

    def __str__(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Step:
    """One thing doing one action for `seconds`.

    Attributes:
        thing: who acts.
        action: one of ACTIONS, or NOTHING.
        partner: what is hit (`hits`), or the thing as it is afterwards (`turns`: same shape, other color).
        seconds: how long.
        cycles: how often the motion is shown in that time; a change of color happens once.
        place: where across the direction of motion, in 0..1 of the free room.
        beside: what another thing does at the same time, in the right half of the frame; then this one keeps to the
            left. Its own seconds and cycles do not count.
    """

    thing: Thing
    action: str
    partner: Thing
    seconds: float
    cycles: int
    place: float
    beside: Step | None = None

    def __str__(self) -> str:
        if self.action == "hits":
            return f"a {self.thing} hits a {self.partner}"
        if self.action == "turns":
            return f"a {self.thing} turns {self.partner.color}"
        return f"a {self.thing} {self.action}"


@dataclass(frozen=True)
class Story:
    """Steps in order, before a still background of one color (RGB 0..255)."""

    steps: tuple[Step, ...]
    background: tuple[int, int, int]

    def __str__(self) -> str:
        if len(self.steps) == 1:
            return str(self.steps[0])
        return ", ".join(f"{ordinal} {step}" for ordinal, step in zip(ORDINALS, self.steps, strict=False))

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    def times(self) -> list[tuple[float, float]]:
        """Start and end of each step in seconds."""
        ends = [sum(step.seconds for step in self.steps[: i + 1]) for i in range(len(self.steps))]
        return list(zip([0.0, *ends[:-1]], ends, strict=True))


def story(rng: random.Random, steps: int, seconds: float, cycle_seconds: float) -> Story:
    """A random story of `steps` steps that lasts `seconds`, each motion taking about `cycle_seconds`."""
    weights = [rng.uniform(1.0, 1.6) for _ in range(steps)]
    lengths = [round(seconds * weight / sum(weights), 1) for weight in weights[:-1]]
    lengths.append(round(seconds - sum(lengths), 1))
    shades = [rng.randint(20, 90) for _ in range(3)]
    return Story(
        tuple(_step(rng, length, max(1, round(length / cycle_seconds))) for length in lengths),
        (shades[0], shades[1], shades[2]),
    )


def _step(rng: random.Random, seconds: float, cycles: int) -> Step:
    thing = _thing(rng)
    action = rng.choice(ACTIONS)
    return Step(thing, action, _partner(rng, thing, action), seconds, 1 if action == "turns" else cycles, rng.random())


def _thing(rng: random.Random) -> Thing:
    return Thing(rng.choice(list(COLORS)), rng.choice(SHAPES))


def _partner(rng: random.Random, thing: Thing, action: str) -> Thing:
    other = rng.choice([color for color in COLORS if color != thing.color])
    return Thing(other, thing.shape) if action == "turns" else Thing(other, rng.choice(SHAPES))


def with_other_things(rng: random.Random, original: Story, changed: set[int]) -> Story:
    """The same actions in the same order, with newly drawn things in the `changed` steps."""
    steps = list(original.steps)
    for i in changed:
        thing = _thing(rng)
        steps[i] = replace(steps[i], thing=thing, partner=_partner(rng, thing, steps[i].action))
    return replace(original, steps=tuple(steps))


def with_other_shapes(rng: random.Random, original: Story, changed: set[int]) -> Story:
    """The same colors and actions in the same order, with newly drawn shapes in the `changed` steps."""
    steps = list(original.steps)
    for i in changed:
        step = steps[i]
        thing = replace(step.thing, shape=rng.choice(SHAPES))
        shape = thing.shape if step.action == "turns" else rng.choice(SHAPES)
        steps[i] = replace(step, thing=thing, partner=replace(step.partner, shape=shape))
    return replace(original, steps=tuple(steps))


def with_other_actions(rng: random.Random, original: Story, changed: set[int]) -> Story:
    """The same things in the same order, with newly drawn one-thing actions in the `changed` steps."""
    steps = list(original.steps)
    for i in changed:
        steps[i] = replace(steps[i], action=rng.choice(ACTIONS[:7]))
    return replace(original, steps=tuple(steps))


def with_other_order(rng: random.Random, original: Story) -> Story:
    """The same steps, shuffled."""
    return replace(original, steps=tuple(rng.sample(original.steps, len(original.steps))))
