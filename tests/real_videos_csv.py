"""Writes a csv `path,label,split` of real videos, labeled by the folder that they come from.

Use: python tests/real_videos_csv.py FOLDER_OF_FOLDERS OUT.csv
"""

import csv
import os
import random
import sys
from pathlib import Path

ENDINGS = {".3gp", ".avi", ".flv", ".gif", ".mkv", ".mov", ".mp4", ".mpg", ".ogv", ".ts", ".webm", ".wmv"}


def write_csv(root: Path, out: Path) -> int:
    """Every third video of each folder, in a seeded order, is test; returns the number of videos."""
    rows = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
        random.Random(folder.name).shuffle(videos)
        for number, video in enumerate(videos):
            split = "train" if number % 3 else "test"
            rows.append((os.path.relpath(video, out.parent), folder.name, split))
    with out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return len(rows)


if __name__ == "__main__":
    print(write_csv(Path(sys.argv[1]), Path(sys.argv[2])), "videos")
