"""Films of the mini world on disk: made on first use in the cache folder, then found there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

from evalkit import cache
from evalkit.mini import film, world
from evalkit.progress import track


def films(name: str, stories: Sequence[world.Story], fps: int) -> list[Path]:
    """Paths of the stories' mp4 files, in order; what is missing is filmed first, on all cores.

    Args:
        name: of the set; the same name must always come with the same stories, of which there may be more or fewer.
        stories: what to film.
        fps: frames per second.
    """
    folder = cache.folder() / "mini" / f"v{world.VERSION}" / name
    paths = [folder / f"{i:05d}.mp4" for i in range(len(stories))]
    missing = [(story, path, fps) for story, path in zip(stories, paths, strict=True) if not path.is_file()]
    if missing:
        with multiprocessing.get_context("spawn").Pool() as pool:
            made = pool.imap_unordered(_write, missing, chunksize=4)
            for _ in track(made, f"film {name}", len(missing)):
                continue
    return paths


def _write(job: tuple[world.Story, Path, int]) -> None:
    film.write(*job)
