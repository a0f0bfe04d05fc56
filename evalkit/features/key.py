"""Keys of stored features: the digest of everything that changes a feature."""

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

from evalkit.api import Clip, FeatureSpec, Views
from evalkit.features.shards import FORMAT

# Bytes at either end of a file that are hashed.
END_BYTES = 16 << 10
# Raised when the same file, views and clip give other pixels: sampling, cropping, scaling or normalizing changed.
PREPROCESSING = 2
# Fields that keys had not always, and their defaults.
ADDED = (("clip", Clip(), ("share", "interpolation", "center")), ("views", Views(), ("window", "window_stride")))


@dataclass(frozen=True)
class Identity:
    """Content of a video file, independent of its path.

    Attributes:
        size: of the file in bytes.
        mtime_ns: modification time in nanoseconds; None if all of the file was hashed.
        sha256: of its first and last 16 KiB, or of all of it.
    """

    size: int
    mtime_ns: int | None
    sha256: str


def identify(path: Path, full: bool = False) -> Identity:
    """Identify a video file by its size, its modification time and its two ends: moving it changes none of them.

    A copy has another modification time, and is therefore another video, unless it was made with `cp -p` or
    `rsync -t`.

    Args:
        path: of the file.
        full: hash the whole file and ignore the time, so that copies are the same video, and bytes replaced in the
            middle under the old time are found.

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
    """Everything that changes a stored feature. A task's texts do not: one feature serves every question.

    Attributes:
        video: the source of the frames.
        span: start and end in seconds; None means the whole video.
        views: which frames and crops, resolved: `frames`, `size` and `resize` are not None.
        clip: the encoder's input: value range, mean, std, and how frames are interpolated and centered.
        decoder: names and versions of the decoders that may read the file.
        weights: sha256 of the encoder's weights.
        architecture: hash of the encoder's code and settings, as `architecture` gives it: equal weights may be used
            in different ways.
        feature_spec: the part of the encoder's output that is kept, and how it is stored.
        precision: of the encoder's arithmetic: 32, or bf16 or 16 under autocast.
        variant: change to the pixels: unchanged, shuffled (with its seed), single_frame; and for an augmented view its
            description by `evalkit.video.augment.AugmentedView.of`.
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
    feature_spec: FeatureSpec
    precision: str
    variant: str = "unchanged"
    preprocessing: int = PREPROCESSING
    store: int = FORMAT

    def digest(self) -> bytes:
        """The 32 bytes under which the feature is stored; 1 and 1.0 give the same."""
        values = _plain(asdict(self))
        # Keys had none of these before: features that were stored of what still is as it was stay.
        for part, default, names in ADDED:
            for name in names:
                if values[part][name] == getattr(default, name):
                    del values[part][name]
        text = json.dumps(values, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).digest()


def architecture(encoder: nn.Module) -> str:
    """Hash an encoder's modules, their plain attributes, and their source files.

    Heads, a norm's epsilon or a wrapper's own code change the output at equal weights; so may each line of the files
    in which the modules' classes are written, except torch's. The origin of the weights does not count.
    """
    digest = hashlib.sha256()
    files = set()
    for name, module in encoder.named_modules():
        kind = type(module)
        texts = {key: _text(value) for key, value in vars(module).items() if key not in _COMMON}
        settings = sorted((key, text) for key, text in texts.items() if text)
        digest.update(f"{name} {kind.__qualname__} {settings}\n".encode())
        for base in kind.__mro__:
            if base.__module__.partition(".")[0] not in ("torch", "builtins"):
                try:
                    files.add(inspect.getfile(base))
                except (OSError, TypeError):  # typed into an interpreter: there is no file to read
                    continue
    for content in sorted(Path(file).read_bytes() for file in files):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


# Attributes that do not change the output: the mode, which is always evaluation, and the origin of the weights.
_IGNORED = {"training", "name_or_path", "_name_or_path"}
# And those of every module.
_COMMON = {*vars(nn.Module()), *_IGNORED}


def _text(value: Any) -> str:
    """A plain value as text; empty for anything else, such as a tensor, a path or a function."""
    if isinstance(value, bool | int | float | str | None):
        return repr(value)
    if isinstance(value, tuple | list):
        parts = [_text(item) for item in value]
        return f"[{', '.join(parts)}]" if all(parts) else ""
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Mapping):
        texts = [(str(key), _text(item)) for key, item in sorted(value.items(), key=str) if key not in _IGNORED]
        return str([(key, text) for key, text in texts if text])
    return ""


def _plain(value: Any) -> Any:
    """A value as JSON holds it, whole floats as integers."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
