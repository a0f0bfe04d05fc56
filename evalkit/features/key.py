"""What makes a feature the same feature: which video, cut and prepared how, encoded by what. Its digest is its key."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from torch import nn

from evalkit.api import Clip, Views
from evalkit.features.codec import Layout
from evalkit.features.store import FORMAT

# Bytes at either end of a file that are looked at.
END_BYTES = 16 << 10
# Raised when the same file, views and clip give other pixels: sampling, cropping, scaling or normalizing changed.
PREPROCESSING = 1


@dataclass(frozen=True)
class Identity:
    """Which video a file holds, wherever it lies and whatever it is called.

    Attributes:
        size: of the file in bytes.
        mtime_ns: when it was last written, in nanoseconds; None where all of it was hashed.
        sha256: of its first and last 16 KiB, or of all of it.
    """

    size: int
    mtime_ns: int | None
    sha256: str


def identify(path: Path, full: bool = False) -> Identity:
    """The identity of a video file, from its size, its time of writing and its two ends: a move keeps all three.

    A copy has a time of its own unless it was made with `cp -p` or `rsync -t`, and is then another video. `full` reads
    the whole file and does not look at the time: copies are the same video, and bytes that were replaced in the middle
    under the old time are found.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if full:
            return Identity(status.st_size, None, hashlib.file_digest(file, "sha256").hexdigest())
        ends = os.pread(file.fileno(), END_BYTES, 0)
        ends += os.pread(file.fileno(), END_BYTES, max(len(ends), status.st_size - END_BYTES))
    return Identity(status.st_size, status.st_mtime_ns, hashlib.sha256(ends).hexdigest())


@dataclass(frozen=True)
class FeatureKey:
    """Everything that changes a stored feature. Texts of a task are not among it: one feature serves every question.

    Attributes:
        video: whose frames.
        span: start and end in seconds; None means the whole video.
        views: which frames and crops, resolved: `frames`, `size` and `resize` are not None.
        clip: what the encoder sees of pixels: value range, mean, std.
        decoder: names and versions of the decoders that may read the file.
        weights: sha256 of the encoder's weights.
        architecture: of the encoder, as `architecture` says it: equal weights may be used in other ways.
        feature_spec: which layers, and what is kept of them: `pooled`, `tokens of the last 4 layers`, with all
            settings.
        precision: of the encoder's arithmetic: 32, or bf16 or 16 under autocast.
        masking: what of the clip is hidden from the encoder, with its seed; empty means nothing.
        variant: what was done to the pixels: unchanged, shuffled (with its seed), single_frame; and where they are an
            augmented view, which one, by `evalkit.video.augment.AugmentedView.of`.
        dtype: of what is kept, before it is stored.
        layout: how it is stored.
        preprocessing: version of evalkit's own way from frames to the encoder's input.
        store: version of the store's format.
    """

    video: Identity
    span: tuple[float, float] | None
    views: Views
    clip: Clip
    decoder: str
    weights: str
    architecture: str
    feature_spec: str
    precision: str
    masking: str = ""
    variant: str = "unchanged"
    dtype: str = "float32"
    layout: Layout = "given"
    preprocessing: int = PREPROCESSING
    store: int = FORMAT

    def digest(self) -> bytes:
        """The 32 bytes under which the feature is stored; equal numbers are equal, be they 1 or 1.0."""
        text = json.dumps(_plain(asdict(self)), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).digest()


def architecture(encoder: nn.Module) -> str:
    """Hash of what an encoder does with its weights: its modules, their plain attributes, and their source files.

    Heads, a norm's epsilon or a wrapper's own code change the output at equal weights; so may each line of the files
    in which the modules' classes are written, torch's own left aside. Where the weights came from does not count.
    """
    digest = hashlib.sha256()
    files = set()
    for name, module in encoder.named_modules():
        kind = type(module)
        own = {key: _text(value) for key, value in vars(module).items() if key not in _TORCHS}
        told = {key: value for key, value in own.items() if value}
        digest.update(f"{name} {kind.__qualname__} {sorted(told.items())}\n".encode())
        for base in kind.__mro__:
            if base.__module__.partition(".")[0] not in ("torch", "builtins"):
                try:
                    files.add(inspect.getfile(base))
                except (OSError, TypeError):  # typed into an interpreter: there is no file to read
                    continue
    for content in sorted(Path(file).read_bytes() for file in files):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


# What every module has, whatever it does.
_TORCHS = {*vars(nn.Module()), "training", "name_or_path", "_name_or_path"}
# Attributes of modules that say nothing about the output: evaluation is always meant, and where weights came from.
_ASIDE = {"training", "name_or_path", "_name_or_path"}


def _text(value: Any) -> str:
    """A plain value as text; empty for anything else, such as a tensor, a path or a function."""
    if isinstance(value, bool | int | float | str | None):
        return repr(value)
    if isinstance(value, tuple | list):
        parts = [_text(one) for one in value]
        return f"[{', '.join(parts)}]" if all(parts) else ""
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Mapping):
        told = [(str(key), _text(one)) for key, one in sorted(value.items(), key=str) if key not in _ASIDE]
        return str([(key, text) for key, text in told if text])
    return ""


def _plain(value: Any) -> Any:
    """A value as JSON holds it, whole floats as integers."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
