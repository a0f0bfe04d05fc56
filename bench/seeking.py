"""Whether frames found by seeking equal those of sequential decoding, for tests/video/seekable.py's kinds and a folder.

    PYTHONPATH=. python bench/seeking.py [folder of videos]

Takes some minutes. Prints what differs, and what could not be made or decoded.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import av
from av.error import FFmpegError

from evalkit.video.timeline import DecodeError
from tests.video.seekable import difference, matrix, write

VIDEOS = Path(__file__).parents[2] / "shared" / "data" / "videos"
GOPS = (1, 2, 5, 12, 250)


def outcome(path: Path, name: str) -> str:
    """One of equal, different, not decoded, refused; prints what is not equal."""
    try:
        words = difference(path)
    except DecodeError as error:
        print(f"{name}: {error}", flush=True)
        return "refused"
    except (FFmpegError, ValueError) as error:  # by decoding in sequence
        print(f"{name}: {str(error)[:100]}", flush=True)
        return "not decoded in sequence"
    if words:
        print(f"{name}: {words}", flush=True)
    return "different" if words else "equal"


def main(folder: str = str(VIDEOS)) -> None:
    """Prints what is not equal, and how many are what."""
    av.logging.set_level(av.logging.PANIC)
    counts: dict[str, Counter[str]] = {"made": Counter(), "real": Counter()}
    with tempfile.TemporaryDirectory() as place:
        for kind in matrix(GOPS):
            path = Path(place) / f"video{kind.suffix}"
            try:
                write(path, kind)
            except (FFmpegError, ValueError) as error:
                print(f"{kind.name}: not made ({str(error)[:100]})")
                counts["made"]["not made"] += 1
            else:
                counts["made"][outcome(path, kind.name)] += 1
    for path in sorted(Path(folder).rglob("*.*")):
        if path.suffix in (".json", ".npz") or not path.is_file():
            continue
        counts["real"][outcome(path, str(path.relative_to(folder)))] += 1
    print("\n| videos | equal | different | refused | not decoded in sequence | not made |\n|---|---|---|---|---|---|")
    for which, count in counts.items():
        columns = ("equal", "different", "refused", "not decoded in sequence", "not made")
        print(f"| {which} | {' | '.join(str(count[column]) for column in columns)} |")


if __name__ == "__main__":
    os.environ["SVT_LOG"] = "-1"
    main(*sys.argv[1:])
