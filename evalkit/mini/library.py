"""Films of the mini world on disk: made when they are first wanted in the cache folder, then found there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit.api import Example
from evalkit.mini import film, language, world
from evalkit.runtime import cache
from evalkit.runtime.machine import cores
from evalkit.runtime.processes import ProcessPool
from evalkit.runtime.progress import track


@dataclass(frozen=True)
class Films:
    """A set of films.

    Attributes:
        name: of the set; the same name must always come with the same stories, of which there may be more or fewer.
        stories: what the films show.
        fps: frames per second.
    """

    name: str
    stories: Sequence[world.Story]
    fps: int

    @property
    def paths(self) -> list[Path]:
        """Paths of the stories' mp4 files, which may not exist yet."""
        folder = cache.folder() / "mini" / f"v{world.VERSION}" / self.name
        return [folder / f"{i:05d}.mp4" for i in range(len(self.stories))]

    def prepare_videos(self, examples: Sequence[Example]) -> None:
        """Make the missing videos of these examples, on all cores.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
            RuntimeError: processes that film do not start, or were killed.
        """
        wanted = {example.video for example in examples}
        missing = [
            (story, path, self.fps)
            for story, path in zip(self.stories, self.paths, strict=True)
            if path in wanted and not path.is_file()
        ]
        if missing:
            with ProcessPool(cores(), "filming", "av") as pool:
                for _ in track(pool.map(film.write, missing), f"film {self.name}", len(missing)):
                    continue


def three_minutes(split: str, n: int) -> Films:
    """The first n films of a split of egoschema's miniature: six steps in three minutes."""
    return Films(f"three-minutes-{split}", [question.story for question in language.questions(split, n)], fps=2)
