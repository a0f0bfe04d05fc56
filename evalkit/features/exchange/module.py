"""`ckpt=features:FOLDER`: an encoder whose output for a part of a video is looked up in files."""

from __future__ import annotations

import base64
import bisect
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evalkit.api import Clip, EncoderOutput, FeatureSpec
from evalkit.errors import UserError, counted, printable
from evalkit.features.exchange.manifest import MANIFEST, SPLITS, read_manifest
from evalkit.features.exchange.tables import Part, Table, read_tables, read_texts

PREFIX = "features:"
HASHED = 1 << 30  # bytes of a file up to which all of it is hashed; of a larger one, both ends


@dataclass(frozen=True)
class StoredClip(Clip):
    """The clip that features were made of, as their maker says; frames and size are 0 where that is not known."""

    frames: int = 0
    size: int = 0

    def normalize(self, pixels: Tensor) -> Tensor:
        """Numbers of rows, as they are."""
        return pixels


class FeatureFiles(nn.Module):
    """Numbers of rows (N,) in, what the files hold there out: `EncoderOutput` in float32.

    A part that the files do not have is empty (N, 0). Rows are numbered through all files.

    Attributes:
        folder: of the files.
        tables: a file each.
        manifest: what their maker says of them; empty where nothing is said.
        other_ids: how many ids of the files are none of the task's, once they were looked up for one.

    Raises:
        UserError: the folder is not as docs/features.md has it.
    """

    digest: Tensor

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.tables, self.manifest = folder, read_tables(folder), read_manifest(folder)
        self.parts: dict[Part, tuple[int, ...]] = {
            part: tuple(array.shape[1:]) for part, array in self.tables[0].arrays.items()
        }
        self.dim = self.parts[next(part for part in ("tokens", "frames", "pooled") if part in self.parts)][-1]
        self.pooled_dim = self.parts.get("pooled", (self.dim,))[-1]
        self.clip = self._clip()
        self.other_ids = 0
        heights = [len(next(iter(table.arrays.values()))) for table in self.tables]
        self.starts = [0, *itertools.accumulate(heights)][:-1]
        self._check_rows(heights)
        self._texts = read_texts(folder)
        if self._texts:
            self.encode_text = self._encode_text
        sha = hashlib.sha256()
        for table in self.tables:
            sha.update(f"{table.file.name} {_digest(table.file)}\n".encode())
        for text, vector in sorted(self._texts.items()):
            sha.update(f"{text!r}\n".encode() + vector.float().numpy().tobytes())
        # By it the record knows these features, as it knows other encoders by their weights.
        self.register_buffer("digest", torch.tensor([*sha.digest()], dtype=torch.uint8))

    def forward(self, rows: Tensor, layers: Any = 1) -> EncoderOutput:
        if rows.dtype != torch.int64 or rows.ndim != 1:
            raise UserError(f"{self}: nothing can be encoded or trained")
        if layers != 1:
            raise UserError(f"{self} holds the last layer alone: adapter.layers=1, or another head")
        found = [self.at(row) for row in rows.tolist()]
        read = {part: torch.cat([table.read(part, [row]) for table, row in found]).float() for part in self.parts}
        nothing = torch.empty(len(rows), 0)
        return EncoderOutput(read.get("tokens", nothing), read.get("pooled", nothing), (), read.get("frames"))

    def __str__(self) -> str:
        return f"ckpt={PREFIX}{self.folder}"

    def restore_random(self, seed: int) -> None:
        """Puts torch's random state where it was once the encoder was loaded with this seed, as its maker noted.

        A head then begins with the weights that it has beside the encoder itself.

        Raises:
            UserError: what is noted is no such state.
        """
        noted = self.manifest.get("random") or {}
        if noted.get("seed") != seed:
            return
        try:
            state = base64.b64decode(noted.get("state") or "", validate=True)
            torch.set_rng_state(torch.tensor([*state], dtype=torch.uint8))
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{self.folder / MANIFEST}: random.state is not a state of torch's generator") from error

    @property
    def record(self) -> dict[str, Any]:
        """The result's entry on the features: their origin, as far as it is known, and the number of ignored ids."""
        made_by = self.manifest.get("encoder") or {}
        return {
            "made_by": {key: made_by.get(key) for key in ("name", "ckpt", "sha256")} if made_by else {},
            "parts": {part: [*shape] for part, shape in self.parts.items()},
            "other_ids": self.other_ids,
        }

    @property
    def holds(self) -> str:
        """A description of the available and missing features."""
        texts = f"{counted(len(self._texts), 'text')}" if self._texts else "no texts (texts.npz)"
        return f"features ({', '.join(self.parts)}), {texts} and no encoder"

    def at(self, row: int) -> tuple[Table, int]:
        """The file of a row, and its number there."""
        place = bisect.bisect_right(self.starts, row) - 1
        return self.tables[place], row - self.starts[place]

    def check_spec(self, spec: FeatureSpec) -> None:
        """Raises UserError where the files lack what an adapter reads."""
        if spec.what not in self.parts:
            raise UserError(
                f"{self} holds {' and '.join(self.parts)}, and this adapter reads {spec.what}: make them with `evalkit "
                f"features part={spec.what}`, or choose another head"
            )
        if spec.layers != 1:
            raise UserError(f"{self} holds tokens of the last layer; this adapter reads layers {spec.layers}")

    def _encode_text(self, texts: list[str]) -> Tensor:
        """The vectors (B, E) of texts that are among those of the file; a closed list, as a text tower's is not."""
        if missing := next((text for text in texts if text not in self._texts), None):
            raise UserError(
                f"{self}: texts.npz has no vector of {printable(missing)[:80]!r}; `evalkit features adapter=NAME` "
                "writes those of all texts that this adapter embeds"
            )
        return torch.stack([self._texts[text] for text in texts]).float()

    def _check_rows(self, heights: Sequence[int]) -> None:
        """Raises UserError where the manifest says of a split that it has more rows, or fewer, than its files have."""
        said = self.manifest.get("splits") or {}
        for split in SPLITS:
            rows = (said.get(split) or {}).get("rows")
            there = sum(n for table, n in zip(self.tables, heights, strict=True) if table.split == split)
            if rows not in (None, there):
                raise UserError(
                    f"{self.folder}: {MANIFEST} says {rows:,} rows of {split}, and its files have {there:,}: a file is "
                    "missing or truncated; get it again, or correct the manifest"
                )

    def _clip(self) -> StoredClip:
        said = (self.manifest.get("encoder") or {}).get("clip")
        if said is None:
            return StoredClip()
        try:
            known, counts = {field.name for field in fields(Clip)}, (said["frames"], said["size"])
            if not said.keys() <= known or any(type(n) is not int or n < 1 for n in counts):
                raise TypeError
            values: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in said.items()
            }
            Clip(**values).normalize(torch.zeros(3, 1, 1, dtype=torch.uint8))
            return StoredClip(**values)
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(
                f"{self.folder / MANIFEST}: encoder.clip is not a clip, with frames and size as in docs/features.md"
            ) from error


def _digest(file: Path) -> str:
    """Of a file's bytes; of a large npz, of both ends, where the checksum of each array stands."""
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(0)
        if size <= HASHED or file.suffix != ".npz":
            return hashlib.file_digest(opened, "sha256").hexdigest()
        sha = hashlib.sha256(str(size).encode() + opened.read(1 << 20))
        opened.seek(size - (1 << 20))
        sha.update(opened.read())
        return sha.hexdigest()
