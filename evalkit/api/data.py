"""The description of a task's data: where they are published, and their files on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Data:
    """A benchmark's data. The module of a task states them as `DATA`.

    `evalkit list tasks NAME`, `evalkit doctor task=NAME` and the documentation show them, without any data at hand.
    What is not known is empty.

    Attributes:
        source: where they are published, a URL.
        license: of the data, in the words of who publishes them; `none stated` where they say nothing.
        files: what `data.root=` holds, by path below it, in capitals what differs from file to file; each with its
            format, columns or keys, and other names under which it is found.
        sizes: how many examples the splits have with the task's own settings, as `Task.sizes`.
        disk: how much space the videos take, and where that is known from.
        vanished: how many videos are not to be had any more, and where that is known from.
        needs: extras of evalkit that the task needs, by name, or `WordNet`; each with the words of the command that
            ask for it, `mini=` or `data.*`, empty where every run does.
    """

    source: str = ""
    license: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    disk: str = ""
    vanished: str = ""
    needs: Mapping[str, str] = field(default_factory=dict)

    def counted(self) -> Iterator[tuple[str, str]]:
        """Each split and how many examples it has, in words: of several published numbers all."""
        for split, size in self.sizes.items():
            yield split, " or ".join(f"{number:,}" for number in (size if isinstance(size, tuple) else (size,)))
