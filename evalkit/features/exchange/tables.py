"""Files of features, docs/features.md: rows with ids, in npz, safetensors or parquet, and texts with their vectors."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evalkit.errors import UserError, install, one_line, printable
from evalkit.runtime.bounded import check_archive

Form = Literal["npz", "safetensors", "parquet"]
Part = Literal["pooled", "frames", "tokens"]

TEXTS = "texts.npz"
NAMES = re.compile(rf"(train|val|test)(-\d+)?\.({'|'.join(get_args(Form))})")
# Dimensions of the array of each part: (rows, E), (rows, T', E), (rows, T', S, D).
DIMENSIONS: dict[Part, int] = {"pooled": 2, "frames": 3, "tokens": 4}
COLUMNS = ("ids", "spans", "views", "rows", "targets", "keys")

_MOST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Table:
    """One file: n entries, each of which names a row of the arrays.

    Attributes:
        file: that it is.
        split: of the task.
        ids: (n,) of the examples.
        rows: (n,), the row of each entry.
        spans: (n, 2) in seconds, NaN where an example is a whole video; None where the file has none.
        views: (n,), the number of the view, from 0; None where the file has none.
        arrays: by part, float, with the file's rows first; some lie on the disk until they are read.
    """

    file: Path
    split: str
    ids: list[str]
    rows: NDArray[np.int64]
    spans: NDArray[np.float64] | None
    views: NDArray[np.int64] | None
    arrays: Mapping[Part, Any]

    def read(self, part: Part, rows: Sequence[int]) -> Tensor:
        """The rows (N, ...) of a part."""
        array = self.arrays[part]
        found = [array[row] if isinstance(array, Tensor) else torch.from_numpy(_native(array[row])) for row in rows]
        return torch.stack(found)


def write(file: Path, form: Form, part: Part, array: NDArray[Any], columns: Mapping[str, NDArray[Any]]) -> None:
    """Writes one file of features.

    Args:
        file: its place.
        form: of the file.
        part: of the encoder's output.
        array: (rows, ...) of it.
        columns: those of `COLUMNS` that are known, (n, ...) each.
    """
    if form == "npz":
        arrays: Any = {part: array, **columns}
        np.savez(file, **arrays)
    elif form == "safetensors":
        from safetensors.numpy import save_file

        texts = {name: json.dumps(values.tolist()) for name, values in columns.items() if values.dtype.kind == "U"}
        numbers = {name: np.ascontiguousarray(values) for name, values in columns.items() if name not in texts}
        save_file({part: np.ascontiguousarray(array), **numbers}, file, texts)
    else:
        pyarrow, parquet = _pyarrow(file)
        entries = array[columns["rows"]] if "rows" in columns else array
        flat = pyarrow.array(entries.reshape(-1))
        of_columns = {name: pyarrow.array([*values]) for name, values in columns.items() if name != "rows"}
        of_columns[part] = pyarrow.FixedSizeListArray.from_arrays(flat, int(np.prod(array.shape[1:])))
        shape = {"shape": json.dumps([*array.shape[1:]])}
        parquet.write_table(pyarrow.table(of_columns).replace_schema_metadata(shape), file)


def read_tables(folder: Path) -> list[Table]:
    """Every file of features in a folder, checked but for the numbers themselves.

    Raises:
        UserError: there is none, or one is not as docs/features.md has it.
    """
    files = sorted(file for file in folder.iterdir() if NAMES.fullmatch(file.name)) if folder.is_dir() else []
    if not files:
        raise UserError(
            f"ckpt=features:{folder}: no features there; wanted test.npz, train.npz or others of docs/features.md, as "
            "`evalkit features task=... ckpt=... out=FOLDER` writes them"
        )
    tables = [_table(file) for file in files]
    for part in DIMENSIONS:
        of_part = [table for table in tables if part in table.arrays]
        for table in of_part:
            first, shape = of_part[0], tuple(table.arrays[part].shape[1:])
            if shape != (wanted := tuple(first.arrays[part].shape[1:])):
                raise UserError(
                    f"{table.file}: row 0 of `{part}` has shape {shape}, those of {first.file.name} {wanted}"
                )
        if 0 < len(of_part) < len(tables):
            lacking = next(table for table in tables if part not in table.arrays)
            raise UserError(f"{lacking.file}: it has no `{part}`, which {of_part[0].file.name} has")
    return tables


def read_texts(folder: Path) -> dict[str, Tensor]:
    """The vectors (E,) of texts, by text; empty where the folder has none.

    Raises:
        UserError: the file is not as docs/features.md has it.
    """
    file = folder / TEXTS
    if not file.is_file():
        return {}
    content = _read_npz(file)
    texts, vectors = content.get("texts"), content.get("pooled")
    if texts is None or texts.dtype.kind != "U" or texts.ndim != 1:
        raise UserError(f"{file}: wanted an array `texts` of text (n,){_found(texts)}")
    if vectors is None or vectors.dtype.kind != "f" or vectors.ndim != 2 or len(vectors) != len(texts):
        raise UserError(f"{file}: wanted a float array `pooled` ({len(texts)}, E){_found(vectors)}")
    rows = torch.from_numpy(np.array(vectors))
    if not bool(rows.isfinite().all()):
        raise UserError(f"{file}, row {int((~rows.isfinite()).any(1).nonzero()[0])}: `pooled` holds NaN or infinity")
    names: list[str] = texts.tolist()
    if len(set(names)) < len(names):
        place = next(place for place, text in enumerate(names) if text in names[:place])
        raise UserError(f"{file}, row {place}: the text {printable(names[place])[:80]!r} appears twice")
    return dict(zip(names, rows, strict=True))


def _table(file: Path) -> Table:
    read = {".npz": _read_npz, ".safetensors": _read_safetensors, ".parquet": _read_parquet}[file.suffix]
    content = read(file)
    ids = content.get("ids")
    if ids is None or ids.ndim != 1 or ids.dtype.kind not in "Uiu" or not len(ids):
        raise UserError(f"{file}: wanted an array `ids` (n,) of text, one for each row{_found(ids)}")
    arrays: dict[Part, Any] = {part: content[part] for part in DIMENSIONS if part in content}
    if not arrays:
        raise UserError(f"{file}: wanted an array `pooled`, `frames` or `tokens`; found {', '.join(sorted(content))}")
    for part, array in arrays.items():
        kind = array.dtype
        floats = array.is_floating_point() if isinstance(array, Tensor) else kind.kind == "f" and kind.itemsize <= 8
        if not floats or array.ndim != DIMENSIONS[part] or 0 in array.shape[1:]:
            dims = {"pooled": "E", "frames": "T', E", "tokens": "T', S, D"}[part]
            raise UserError(f"{file}: wanted a float array `{part}` (rows, {dims}){_found(array)}")
    height = {len(array) for array in arrays.values()}
    rows = _integers(file, content, "rows", len(ids))
    if len(height) > 1 or (rows is None and height != {len(ids)}):
        first = min(len(ids), *height)
        sizes = ", ".join(f"`{part}` {len(array)}" for part, array in arrays.items())
        raise UserError(f"{file}, row {first}: {len(ids)} ids, and rows of {sizes}; wanted as many of each")
    (most,) = height
    rows = np.arange(len(ids)) if rows is None else rows
    if len(wrong := np.flatnonzero(rows >= most)):
        raise UserError(f"{file}, entry {wrong[0]}: rows has {rows[wrong[0]]}, and there are {most}")
    spans = content.get("spans")
    if spans is not None and (spans.dtype.kind not in "fiu" or spans.shape != (len(ids), 2)):
        raise UserError(f"{file}: wanted an array `spans` ({len(ids)}, 2), start and end in seconds{_found(spans)}")
    return Table(
        file,
        file.name.partition(".")[0].partition("-")[0],
        [*map(str, ids.tolist())],
        rows,
        None if spans is None else np.array(spans, np.float64),
        _integers(file, content, "views", len(ids)),
        arrays,
    )


def _native(row: NDArray[Any]) -> NDArray[Any]:
    """A copy of a row whose bytes are in this machine's order."""
    return np.array(row, row.dtype.newbyteorder("="))


def _integers(file: Path, content: Mapping[str, Any], name: str, count: int) -> NDArray[np.int64] | None:
    values = content.get(name)
    if values is None:
        return None
    if values.dtype.kind not in "iu" or values.shape != (count,) or (values < 0).any() or (values > _MOST).any():
        raise UserError(f"{file}: wanted an array `{name}` ({count},) of whole numbers from 0{_found(values)}")
    return np.array(values, np.int64)


def _found(array: Any) -> str:
    return "; it has none" if array is None else f"; found {array.dtype} {tuple(array.shape)}"


def _read_npz(file: Path) -> dict[str, Any]:
    """The arrays of an archive; large ones that are not compressed lie on the disk until they are read."""
    try:
        check_archive(file)
        with (
            file.open("rb") as opened,  # which numpy would leave open where it is no archive
            np.load(opened, allow_pickle=False) as archive,
            zipfile.ZipFile(file) as members,
        ):
            content = {
                name: _on_disk(file, members.getinfo(f"{name}.npy"), archive) if name in DIMENSIONS else archive[name]
                for name in archive.files
            }
            return {
                name: array for name, array in content.items() if isinstance(array, np.ndarray)
            }  # else of other files
    except (EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {file} as npz: {one_line(error)}; it is cut off or damaged") from error
    except (OSError, ValueError, KeyError, TypeError, SyntaxError) as error:
        raise UserError(
            f"cannot read {file} as npz: {one_line(error)}; ids are text, np.array(ids, dtype=str)"
        ) from error


def _on_disk(file: Path, member: zipfile.ZipInfo, archive: Any) -> NDArray[Any]:
    """An array of an archive, mapped from the file where its bytes lie there as they are."""
    if member.compress_type != zipfile.ZIP_STORED:
        return np.asarray(archive[member.filename.removesuffix(".npy")])
    with file.open("rb") as opened:
        opened.seek(member.header_offset + 26)  # a member's own header: 30 bytes, then its name and what is extra
        name, extra = np.frombuffer(opened.read(4), "<u2").tolist()
        opened.seek(member.header_offset + 30 + name + extra)
        version = np.lib.format.read_magic(opened)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(opened)
        if dtype.hasobject or not all(shape):
            return np.asarray(archive[member.filename.removesuffix(".npy")])
        return np.memmap(file, dtype, "r", opened.tell(), shape, "F" if fortran else "C")


def _read_safetensors(file: Path) -> dict[str, Any]:
    """The tensors of a file, and the texts of its metadata as arrays."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            texts = {
                name: np.array(json.loads(text)) for name, text in (opened.metadata() or {}).items() if name in COLUMNS
            }
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 it is no mapping
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"cannot read {file} as safetensors: {one_line(error)}") from error
    # numpy has no bfloat16, which features may be.
    return texts | {name: of if name in DIMENSIONS else _numbers(of) for name, of in tensors.items()}


def _numbers(tensor: Tensor) -> NDArray[Any]:
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


def _read_parquet(file: Path) -> dict[str, Any]:
    """The columns of a file; features are lists of numbers, whose `shape` the schema's metadata says, else (E,)."""
    pyarrow, parquet = _pyarrow(file)
    try:
        table = parquet.read_table(file)
        shape = json.loads((table.schema.metadata or {}).get(b"shape", b"[-1]"))
        content: dict[str, Any] = {}
        for name in table.column_names:
            column = table[name].combine_chunks()
            if name in DIMENSIONS:
                if not pyarrow.types.is_nested(column.type) or not len(column):
                    raise UserError(f"{file}: wanted a column `{name}` of lists of numbers; found {column.type}")
                lengths = np.diff(column.offsets) if hasattr(column, "offsets") else np.array([column.type.list_size])
                if len(odd := np.flatnonzero(lengths != lengths[0])):
                    numbers = f"{lengths[odd[0]]} numbers, row 0 {lengths[0]}"
                    raise UserError(f"{file}, row {odd[0]}: `{name}` has {numbers}")
                content[name] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), *shape)
            else:
                content[name] = np.array(column.to_pylist())
    except (OSError, ValueError, TypeError, AttributeError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {file} as parquet: {one_line(error)}") from error
    return content


def _pyarrow(file: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{file}: parquet needs pyarrow: {install('parquet')}") from error
    return pyarrow, pyarrow.parquet
