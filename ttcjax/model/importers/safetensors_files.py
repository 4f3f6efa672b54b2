"""Files of tensors in the safetensors format, one or the shards of an index, read one tensor at a time.

The format: eight bytes with the length of a header, the header in JSON (name, dtype, shape and place of each tensor),
and the numbers one tensor after the other. Nothing in it is code, unlike in files that Python's pickle reads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from ttcjax.runtime import faults
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_there

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

FLOATS: dict[str, Any] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
"""Types of numbers that can be weights."""

_SIZES = {name: np.dtype(kind).itemsize for name, kind in FLOATS.items()} | {
    **dict.fromkeys(("I64", "U64"), 8),
    **dict.fromkeys(("I32", "U32"), 4),
    **dict.fromkeys(("I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
}
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_LONGEST_HEADER = 100_000_000  # bytes


@dataclass(frozen=True)
class Entry:
    """A tensor's place in a file."""

    path: epath.Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Bytes from the start of the file."""

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * _SIZES[self.dtype]


class SafetensorsFiles:
    """The tensors of one file or of several; see `open_folder`.

    Args:
        where: Path of the whole, for messages.
        entries: The tensors by name.
    """

    def __init__(self, where: str, entries: Mapping[str, Entry]):
        self.where = where
        self.shapes = {name: entry.shape for name, entry in entries.items()}
        self._entries = entries

    def dtypes(self) -> dict[str, int]:
        """Return how many tensors there are of each type of numbers."""
        found: dict[str, int] = {}
        for entry in self._entries.values():
            found[entry.dtype] = found.get(entry.dtype, 0) + 1
        return found

    def read(self, name: str) -> np.ndarray:
        """Return a tensor, which is all that is read.

        Raises:
            UserError: Its numbers are no floats, or the file has become shorter.
        """
        entry = self._entries[name]
        if entry.dtype not in FLOATS:
            raise UserError(
                f"{entry.path}: tensor {name} is of type {entry.dtype}: weights that another program has quantised are "
                "not read; take the float or GGUF checkpoint"
            )
        with _explained(entry.path).open("rb") as file:
            file.seek(entry.begin)
            content = file.read(entry.size)
        if len(content) != entry.size:
            raise _short(entry.path, name)
        return np.frombuffer(content, FLOATS[entry.dtype]).reshape(entry.shape)


def open_folder(folder: epath.Path) -> SafetensorsFiles:
    """Read the headers of a folder's `model.safetensors`, or of the shards that its index names.

    Raises:
        UserError: There are none, or pickle files alone; a shard is missing, cut short or no safetensors file; a tensor
            is missing, in another shard than the index says, or there twice.
    """
    if is_there(folder / INDEX):
        return SafetensorsFiles(str(folder), _of_index(folder))
    if is_there(folder / WEIGHTS):
        return SafetensorsFiles(str(folder / WEIGHTS), dict(_entries(folder / WEIGHTS)))
    names = sorted(path.name for path in folder.iterdir())
    if shards := [name for name in names if name.endswith(".safetensors")]:
        raise UserError(f"{folder} has {shards[0]}, and neither {WEIGHTS} nor {INDEX}: copy the index too")
    if pickled := [name for name in names if name.endswith(_PICKLED)]:
        raise UserError(
            f"{folder} has its weights in {pickled[0]}, a pickle file, which can run code and is not read: take the "
            "model's safetensors files"
        )
    raise UserError(f"no {WEIGHTS} in {folder}")


def _of_index(folder: epath.Path) -> dict[str, Entry]:
    path = folder / INDEX
    try:
        listed = json.loads(_explained(path).read_text(), object_pairs_hook=_once)["weight_map"]
        shards = sorted(set(listed.values()))
        if not shards or any("/" in shard or "\\" in shard or shard.startswith(".") for shard in shards):
            raise ValueError("it lists no files, or files of other folders")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no index of safetensors files ({_told(error)}): copy it again") from error
    found: dict[str, Entry] = {}
    for shard in shards:
        if not is_there(folder / shard):
            raise UserError(f"{folder} lacks the shard {shard}, which {INDEX} lists: copy it too")
        for name, entry in _entries(folder / shard):
            if name in found:
                raise UserError(f"{folder}: tensor {name} is in {found[name].path.name} and in {shard}")
            if listed.get(name) != shard:
                due = f"{INDEX} has it in {listed[name]}" if name in listed else f"{INDEX} does not list it"
                raise UserError(f"{folder}: tensor {name} is in {shard}, and {due}: take all files of one version")
            found[name] = entry
    if missing := sorted(set(listed) - set(found)):
        due = listed[missing[0]]
        raise UserError(f"{folder}: tensor {missing[0]} is missing in {due}, where {INDEX} has it: copy it again")
    return found


def _entries(path: epath.Path) -> Iterator[tuple[str, Entry]]:
    """Yield the tensors of a file, whose header is checked against its length."""
    length = _explained(path).stat().length
    with path.open("rb") as file:
        first = file.read(8)
        size = int.from_bytes(first, "little")
        if len(first) < 8 or not 2 <= size <= _LONGEST_HEADER:
            raise UserError(f"{path} is no safetensors file: its first bytes are no length of a header; copy it again")
        header = file.read(size)
    if len(header) < size:
        raise UserError(f"{path} is cut short: {length} bytes, and its header alone has {size}; copy it again")
    end = begin = 8 + size
    try:
        tensors = json.loads(header, object_pairs_hook=_once)
        tensors.pop("__metadata__", None)
        for name, told in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
            shape, offsets = tuple(map(int, told["shape"])), told["data_offsets"]
            if told["dtype"] not in _SIZES or min(shape, default=0) < 0:
                raise ValueError(f"{name} has type {told['dtype']} and shape {list(shape)}")
            entry = Entry(path, told["dtype"], shape, begin + int(offsets[0]))
            if entry.begin != end or offsets[1] - offsets[0] != entry.size:
                raise ValueError(f"{name} does not lie where it must")
            end += entry.size
            if end > length:
                raise _short(path, name)
            yield name, entry
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is no safetensors file, or damaged ({_told(error)}): copy it again") from error
    if end != length:
        raise UserError(f"{path} has {length} bytes, and its tensors end after {end}: copy it again")


def _short(path: epath.Path, name: str) -> UserError:
    return UserError(f"{path} is cut short: the numbers of {name} lie beyond its end; copy it again")


def _explained(path: epath.Path) -> epath.Path:
    """Return a path that can be opened; say it where the machine refuses."""
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        faults.raise_explained(error)
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a table of JSON, no key of which stands twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} stands in it twice")
        found[name] = value
    return found


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def write(
    path: epath.PathLike, tensors: Mapping[str, tuple[str, tuple[int, ...]]], numbers: Iterator[np.ndarray]
) -> None:
    """Write a file, one tensor at a time.

    Args:
        path: The file, made anew.
        tensors: Type, a key of `FLOATS`, and shape of each tensor, by name and in the order of `numbers`.
        numbers: The tensors, each of its shape; converted to its type here.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * _SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with epath.Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name, (dtype, shape) in tensors.items():
            array = next(numbers)
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, and {shape} was told")
            file.write(np.ascontiguousarray(array, FLOATS[dtype]).reshape(-1).view(np.uint8).data)
            del array  # Before the next one is made.
