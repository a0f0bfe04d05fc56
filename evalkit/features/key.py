"""Keys of stored features: a digest of everything that affects a feature."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import os
import sys
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, NoneType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evalkit.api import Clip, FeatureSpec, Views
from evalkit.features.shards import FORMAT
from evalkit.runtime import cache
from evalkit.video.media import Media, locate, url_of

# Bytes at either end of a video that are hashed, and number and size of the blocks between them.
END_BYTES, BLOCKS, BLOCK_BYTES = 16 << 10, 8, 4 << 10
AT_ONCE = 32  # requests to a server
# So many files are tried one by one; the others at once, if that took so many times the processor's time.
TRIED, WAITS = 32, 4.0
SETTLED_S = 5.0  # since the last change of a file that is known again by its times
ROW_BYTES = 48  # of what is kept of a row of a parquet file: size, sha256, and a hash of both
# Raised when the same file, views and clip give other pixels: sampling, cropping, scaling or normalizing changed.
PREPROCESSING = 2
# Fields that keys had not always, and their defaults.
ADDED = (("clip", Clip(), ("share", "interpolation", "center")), ("views", Views(), ("window", "window_stride")))


@dataclass(frozen=True)
class Identity:
    """Content of a video, independent of its location.

    Attributes:
        size: in bytes.
        sha256: of its ends and of blocks between them, or of all of it.
    """

    size: int
    sha256: str


def identify(path: Path, full: bool = False) -> Identity:
    """Identify a video by its size and some of its bytes, so that a copy, also in a tar, is the same video.

    Hashed are the first and last 16 KiB and eight blocks of 4 KiB that lie evenly between them, of a video of up to
    64 KiB all. A video that is encoded again, cut, or given another title differs there in practice. One in which bytes
    were replaced elsewhere, its size as before, by damage or by hand, is taken for the same, whatever its modification
    time: `full` tells them apart.

    Args:
        path: of the video, as `evalkit.video.media` reads it.
        full: hash all of it.

    Raises:
        OSError: there is no such video, or it cannot be read.
    """
    media = locate(path)
    if full:
        with media.open() as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return Identity(file.size, digest.hexdigest())
    if media.row:
        return _of_row(media, *media.row)
    if url_of(path) and media.inside:
        return _of_url(path, media.version)
    if not media.inside and (state := _state(path)):
        return _of_file(path, state)
    return _sample(media)


def identify_ahead(videos: Iterable[Path]) -> None:
    """Identify videos in advance, many at once if each waits for a server or a shared disk."""

    def ask(video: Path) -> None:
        with contextlib.suppress(OSError):  # who asks for it alone will be told
            identify(video)

    distinct = list(dict.fromkeys(videos))
    waiting = [video for video in distinct if url_of(video)]
    if not waiting and len(distinct) > TRIED:
        started, busy = time.perf_counter(), time.thread_time()
        deque(map(ask, distinct[:TRIED]), maxlen=0)
        if time.perf_counter() - started > WAITS * (time.thread_time() - busy):
            waiting = distinct[TRIED:]
    if len(waiting) > 1:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            deque(pool.map(ask, waiting), maxlen=0)


def _state(path: Path) -> tuple[int, ...] | None:
    """File status that changes when a file is replaced or written; None if the last change is too recent to tell.

    Whoever sets a file's modification time back changes its status, and with that the time of the change.
    """
    status = os.stat(path)
    if time.time() - max(status.st_mtime, status.st_ctime) < SETTLED_S:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@functools.lru_cache(maxsize=500_000)
def _of_file(path: Path, state: tuple[int, ...]) -> Identity:
    return _sample(locate(path))


def _sample(media: Media) -> Identity:
    with media.open() as file:
        parts = file.ranges(_sampled(file.size))
        return Identity(file.size, hashlib.sha256(b"".join(parts)).hexdigest())


@functools.lru_cache(maxsize=500_000)
def _of_url(path: Path, version: str) -> Identity:
    return _sample(locate(path))


def _of_row(media: Media, container: str, row: int) -> Identity:
    """Identity of a row of a parquet file, kept in the cache folder because it requires reading a whole row group."""
    file = cache.folder() / "rows" / f"{hashlib.sha256(container.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"
    with contextlib.suppress(OSError), open(file, "rb", buffering=0) as stored:
        record = os.pread(stored.fileno(), ROW_BYTES, ROW_BYTES * row)
        if record[40:] == hashlib.blake2b(record[:40], digest_size=8).digest():
            return Identity(int.from_bytes(record[:8], "little"), record[8:40].hex())
    identity = _sample(media)
    record = identity.size.to_bytes(8, "little") + bytes.fromhex(identity.sha256)
    record += hashlib.blake2b(record, digest_size=8).digest()
    with contextlib.suppress(OSError):  # a cache that cannot be written: it is read again
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        try:
            os.pwrite(descriptor, record, ROW_BYTES * row)
        finally:
            os.close(descriptor)
    return identity


def _sampled(size: int) -> list[tuple[int, int]]:
    """Offsets and lengths of the parts of a file of this size that are hashed."""
    between = size - 2 * END_BYTES - BLOCKS * BLOCK_BYTES
    if between <= 0:
        return [(0, size)] if size else []
    blocks = [END_BYTES + (k + 1) * between // (BLOCKS + 1) + k * BLOCK_BYTES for k in range(BLOCKS)]
    return [(0, END_BYTES), *((start, BLOCK_BYTES) for start in blocks), (size - END_BYTES, END_BYTES)]


@dataclass(frozen=True)
class FeatureKey:
    """Everything that affects a stored feature. Texts do not: all questions about a clip share its feature.

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
        return _digest(self._values)

    def digest_of(self, video: Identity, span: tuple[float, float] | None, variant: str) -> bytes:
        """The digest of the same key with another video, span and variant."""
        changed = {"video": {"size": video.size, "sha256": video.sha256}, "span": _plain(span), "variant": variant}
        return _digest(self._values | changed)

    @functools.cached_property
    def _values(self) -> dict[str, Any]:
        """All fields as JSON holds them."""
        values: dict[str, Any] = _plain(asdict(self))
        # Keys had none of these before: features that were stored of what still is as it was stay.
        for part, default, names in ADDED:
            for name in names:
                if values[part][name] == getattr(default, name):
                    del values[part][name]
        return values


def _digest(values: Mapping[str, Any]) -> bytes:
    text = json.dumps(values, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).digest()


def architecture(encoder: nn.Module) -> str:
    """Hash an encoder's modules, their attributes, buffers that no checkpoint holds, and their source files.

    Heads, a norm's epsilon or a wrapper's own code change the output at equal weights; so may each line of the files
    in which the modules' classes are written, except torch's. The attributes and code of an object count if its class
    is the user's own, and those of a module that is not registered, which no checkpoint holds, whatever its class. The
    origin of the weights does not count.
    """
    digest = hashlib.sha256()
    files = set[str]()
    objects = {id(module): f"module {name}" for name, module in encoder.named_modules()}  # each is hashed below
    saved = encoder.state_dict().keys()
    for name, buffer in encoder.named_buffers():
        if name not in saved:
            digest.update(f"{name} {_text(buffer, objects)}\n".encode())
    for name, module in encoder.named_modules():
        kind = type(module)
        texts = {key: _text(value, objects) for key, value in vars(module).items() if key not in _COMMON}
        settings = sorted((key, text) for key, text in texts.items() if text)
        digest.update(f"{name} {kind.__qualname__} {settings}\n".encode())
        files |= _files(kind.__mro__)
    digest.update(_of_files(files))
    return digest.hexdigest()


def _files(classes: Iterable[type]) -> set[str]:
    """The files in which classes are written, except torch's."""
    files = set()
    for kind in classes:
        if kind.__module__.partition(".")[0] not in ("torch", "builtins"):
            with contextlib.suppress(OSError, TypeError):  # typed into an interpreter: there is no file to read
                files.add(inspect.getfile(kind))
    return files


def _of_files(files: Iterable[str]) -> bytes:
    """Hashes of the contents of files, wherever they are."""
    return b"".join(hashlib.sha256(content).digest() for content in sorted(Path(file).read_bytes() for file in files))


# Attributes that do not change the output: the mode, which is always evaluation, and the origin of the weights.
_IGNORED = {"training", "name_or_path", "_name_or_path"}
# And those of every module; compilation is a part of the key of its own.
_COMMON = {*vars(nn.Module()), "_compiled_call_impl", *_IGNORED}


# Values whose repr says all of them.
_SIMPLE = (bool, int, float, complex, str, bytes, NoneType, Enum, range, torch.dtype, np.generic)
_DEEPEST = 200  # containers within one another; what lies deeper is not looked at


def _text(value: Any, objects: dict[int, str], around: tuple[int, ...] = ()) -> str:
    """A value as text, the same in every process; empty for an object of an unknown kind, such as a path or a hook.

    Args:
        value: of an attribute of a module.
        objects: what stands for modules, the user's own objects, and their classes, by identity: each is looked into
            once.
        around: identities of the containers and functions that hold it; one of them within itself says nothing more.
    """
    if isinstance(value, _SIMPLE):
        return repr(value)
    if isinstance(value, Tensor):
        return _tensor_text(value)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:  # its bytes are addresses
            return ""
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if id(value) in around or len(around) == _DEEPEST:
        return ""
    text = functools.partial(_text, objects=objects, around=(*around, id(value)))
    if isinstance(value, slice):
        return f"slice {text((value.start, value.stop, value.step))}"
    if isinstance(value, functools.partial):
        return f"partial {text((value.func, value.args, value.keywords))}"
    if isinstance(value, MethodType):
        return f"method {text(value.__func__)} {text(value.__self__)}"
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return _function_text(value, text)
    if not (_is_own(kind := type(value)) or isinstance(value, nn.Module)):
        return _content_text(value, text)
    if id(kind) not in objects:
        objects[id(kind)] = f"{kind.__qualname__} {_of_files(_files(filter(_is_own, kind.__mro__))).hex()}"
    if id(value) not in objects:
        state = f"{objects[id(kind)]} {_content_text(value, text)} {text(object.__getstate__(value))}"
        objects[id(value)] = hashlib.sha256(state.encode()).hexdigest()
    return objects[id(value)]


def _content_text(value: Any, text: Callable[[Any], str]) -> str:
    """What a container, a namespace or a dataclass holds; empty for anything else."""
    if isinstance(value, tuple | list | deque):
        items = [*map(text, value)]
        return f"[{', '.join(items)}]" if any(items) or not items else ""
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(text, value)))}}}"
    if isinstance(value, SimpleNamespace | Namespace) or (is_dataclass(value) and hasattr(value, "__dict__")):
        value = vars(value)
    elif is_dataclass(value):  # with slots
        value = {field.name: getattr(value, field.name, None) for field in fields(value)}
    if isinstance(value, Mapping):
        # The text of an object as a key has its address, of which nothing may depend.
        named = [(str(key) if isinstance(key, _SIMPLE) else text(key), item) for key, item in value.items()]
        texts = [(name, text(item)) for name, item in sorted(named, key=_name) if name not in _IGNORED]
        return str([(name, text) for name, text in texts if text])
    return ""


def _is_own(kind: type) -> bool:
    """Whether a class is in a file of the user's own, neither Python's nor of an installed package."""
    package = kind.__module__.partition(".")[0]
    if package in sys.stdlib_module_names or package == "evalkit":
        return False
    try:
        return {"site-packages", "dist-packages"}.isdisjoint(Path(inspect.getfile(kind)).parts)
    except (OSError, TypeError):  # typed into an interpreter
        return package == "__main__"


def _name(item: tuple[str, Any]) -> str:
    return item[0]


def _tensor_text(value: Tensor) -> str:
    if value.is_meta:
        return f"{value.dtype} {tuple(value.shape)}"
    if value.is_nested:
        return f"nested {[*map(_tensor_text, value.unbind())]}"
    if value.layout is not torch.strided:
        entries = value.detach().to_sparse().coalesce()
        return f"sparse {tuple(value.shape)} {_tensor_text(entries.indices())} {_tensor_text(entries.values())}"
    value = value.detach().cpu().resolve_conj().resolve_neg()
    data: Any = value.contiguous().flatten().view(torch.uint8).numpy() if value.numel() else b""
    return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(data).hexdigest()}"


def _function_text(function: FunctionType | BuiltinFunctionType, text: Callable[[Any], str]) -> str:
    """A function by its name, and, except torch's, by its code and the values that it brings along, as `text` says."""
    name = f"{function.__module__}.{function.__qualname__}"
    if isinstance(function, BuiltinFunctionType) or name.partition(".")[0] == "torch":
        return name
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
    bound = [*(function.__defaults__ or ()), *cells, function.__kwdefaults__]
    return f"{name} {_code_text(function.__code__, text)} {[*map(text, bound)]}"


def _code_text(code: CodeType, text: Callable[[Any], str]) -> str:
    constants = [_code_text(each, text) if isinstance(each, CodeType) else text(each) for each in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _plain(value: Any) -> Any:
    """A value as JSON holds it, whole floats as integers."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
