"""Third training of the embedded encoder: each step of a whole film against the words for that step.

Whole films against whole captions teach what happens and in which order; a shape, one of six in a caption of fifty
words, they do not. Here the tokens of a step's own time are pooled and told from the words of other steps, and from
near misses of its own, while the film's pooled tokens are told from other captions as before.

Run by `make weights`, after the lessons in evalkit/demo/lessons.py: python -m evalkit.demo.train_encoder CKPT FOLDER
"""

from __future__ import annotations

import itertools
import logging
import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evalkit import encoders
from evalkit.api import Example, Views
from evalkit.encoders.longvivit import ViViT
from evalkit.heads.losses import clip_loss
from evalkit.heads.optim import adamw
from evalkit.mini import language, library, world
from evalkit.mini.library import Films
from evalkit.runtime import notes
from evalkit.runtime.machine import cores
from evalkit.runtime.progress import track
from evalkit.video.clips import Decoded, Request
from evalkit.video.workers import read_clips

logger = logging.getLogger("evalkit")

FILMS, STEPS, BATCH, LR, TEMPERATURE, SEED = 3600, 520, 16, 1e-3, 0.07, 1
WHOLE = 0.5  # what whole films weigh beside their steps


class Captions(NamedTuple):
    """Right captions, one per vector, and wrong ones: near misses of any of them."""

    right: list[str]
    wrong: list[str]


def of_films(rng: random.Random, stories: Sequence[world.Story]) -> Captions:
    """Captions of films, and near misses of each."""
    wrong = [text for story in stories for text in language.near_misses(rng, story, language.KINDS, 2)]
    return Captions(list(map(str, stories)), wrong)


def of_steps(rng: random.Random, stories: Sequence[world.Story]) -> Captions:
    """Captions of each step of films, in order, and near misses of each, half of them in the shape alone."""
    captions = Captions([], [])
    for story in stories:
        for step in story.steps:
            captions.right.append(str(step))
            alone = world.Story((step,), story.background)
            for kinds, n in ((("shape",), 2), (("appearance", "motion"), 1)):
                captions.wrong.extend(language.near_misses(rng, alone, kinds, n))  # type: ignore[arg-type]
    return captions


def shares(story: world.Story, steps: int) -> Tensor:
    """Weight of each of T' time steps in the mean over a step of the story: (6, T')."""
    middles = (torch.arange(steps) + 0.5) * story.seconds / steps
    within = torch.stack([(start <= middles) & (middles < end) for start, end in story.times()]).float()
    return within / within.sum(-1, keepdim=True)


def contrast(vectors: Tensor, captions: Captions, embed: Callable[[list[str]], Tensor], log_scale: Tensor) -> Tensor:
    """Symmetric cross-entropy of vectors (N, D) and their N right captions, among the wrong ones.

    Equal captions of other vectors are no negatives.
    """
    numbers = {text: i for i, text in enumerate(dict.fromkeys([*captions.right, *captions.wrong]))}
    place = torch.tensor([numbers[text] for text in [*captions.right, *captions.wrong]])
    texts = F.normalize(embed(list(numbers)), dim=-1)[place]  # each text embedded once
    return clip_loss(F.normalize(vectors, dim=-1), texts, log_scale, place == place[: len(captions.right), None])


def pixels(films: Films, encoder: ViViT) -> Tensor:
    """Decode each film in the encoder's own clip: uint8 (N, T, 3, H, W).

    Raises:
        RuntimeError: one cannot be decoded.
    """
    clip = encoder.clip
    films.prepare_videos([Example(path.stem, path) for path in films.paths])
    requests = [Request(path, None, Views("uniform"), clip.frames, clip.size) for path in films.paths]
    clips = torch.empty(len(requests), clip.frames, 3, clip.size, clip.size, dtype=torch.uint8)
    for i, decoded in enumerate(track(read_clips(requests, workers=cores()), "decode", len(requests))):
        if not isinstance(decoded, Decoded):
            raise RuntimeError(f"{films.paths[i]}: {decoded.reason}")
        clips[i] = decoded.pixels[0]
    return clips


def orders(rng: random.Random, n: int, batch: int) -> Iterator[list[int]]:
    """Yield batches of indices below n without end, each index once before any comes again."""
    order: list[int] = []
    while True:
        if len(order) < batch:
            order = rng.sample(range(n), n)
        yield order[:batch]
        order = order[batch:]


def learn(encoder: ViViT, video: Tensor, stories: Sequence[world.Story], steps: int, batch: int = BATCH) -> list[float]:
    """Train video and text towers in place; returns the loss of each step."""
    encoder.train().requires_grad_(True)
    scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))
    training = adamw(nn.ModuleList([encoder, nn.ParameterList([scale])]), LR, 0.05, steps)
    optimizer, schedule = training["optimizer"], training["lr_scheduler"]["scheduler"]
    rng, losses = random.Random(SEED), []
    for indices in track(itertools.islice(orders(rng, len(stories), batch), steps), "encoder", steps):
        shown = [stories[i] for i in indices]
        encoded = encoder(video[indices])
        each = encoded.tokens.mean(2)  # (B, T', D)
        within = torch.stack([shares(story, each.shape[1]) for story in shown])
        of_each = contrast((within @ each).flatten(0, 1), of_steps(rng, shown), encoder.encode_text, scale)
        of_whole = contrast(encoded.pooled, of_films(rng, shown), encoder.encode_text, scale)
        loss = of_each + WHOLE * of_whole
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([*encoder.parameters(), scale], 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if len(losses) % 20 == 0:
            logger.info(f"step {len(losses)}: loss {loss.item():.3f}, of steps {of_each.item():.3f}")
    encoder.eval()
    return losses


def main(ckpt: str, folder: Path) -> None:
    """Write a checkpoint folder that `ckpt=` takes."""
    torch.manual_seed(SEED)
    encoder = encoders.load_encoder(ckpt)
    assert isinstance(encoder, ViViT)
    films = library.three_minutes("train", FILMS)
    learn(encoder, pixels(films, encoder), films.stories, STEPS)
    folder.mkdir(parents=True)
    encoders.save_encoder(encoder, encoders.spec_of(ckpt), folder)


if __name__ == "__main__":
    with notes.on_stderr():
        main(sys.argv[1], Path(sys.argv[2]))
