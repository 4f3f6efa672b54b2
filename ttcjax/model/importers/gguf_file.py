"""Models in the GGUF format: header and places read here, numbers made floats by the `gguf` library."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from etils import epath

from ttcjax.runtime import faults
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_remote

_KINDS = frozenset(
    ["F64", "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
)
"""Types of numbers that are read."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Forms of scalar values, by their number in the format, in the letters of `struct`."""
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)


@dataclass(frozen=True)
class Listed:
    """A list in the metadata, which may be long: where it lies in the file."""

    count: int
    form: int
    begin: int


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    kind: Any
    """A `gguf.GGMLQuantizationType`."""
    begin: int
    """Bytes from the start of the file."""
    stored: tuple[int, ...]
    """Its shape in bytes."""


class GgufFile:
    """Tensors and metadata of a GGUF file.

    Args:
        path: The file, on a local disk.

    Raises:
        UserError: It is no GGUF file, cut short, or the library is not installed.
    """

    def __init__(self, path: epath.Path):
        self.where = str(path)
        self._path = path
        if is_remote(path):
            raise UserError(f"{path}: GGUF files are read from a local disk; copy it first")
        try:
            with path.open("rb") as file:
                self._read_header(file)
        except UserError:
            raise
        except OSError as error:
            faults.raise_explained(error)
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
        except (struct.error, ValueError, OverflowError, MemoryError) as error:
            raise UserError(f"{path} is cut short or damaged, its header cannot be read: copy it again") from error
        self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}

    def _read_header(self, file: IO[bytes]) -> None:
        magic = file.read(4)
        if magic != b"GGUF":
            raise UserError(f"{self._path} is no GGUF file: it begins with {magic!r}")
        version, tensors, values = _unpack(file, "IQQ")
        if version not in _VERSIONS:
            raise UserError(f"{self._path} is of GGUF version {version}; known: {', '.join(map(str, _VERSIONS))}")
        self.metadata: Mapping[str, Any] = dict(_entry(file) for _ in range(values))
        """Values by name; lists are `Listed`, see `listed`."""
        parts, step = self._whole("split.count", 1), self._whole("general.alignment", 32)
        if parts > 1:
            raise UserError(f"{self._path} is one of {parts} parts: join them with llama.cpp's gguf-split --merge")
        told = [_told(file) for _ in range(tensors)]
        begin = -(-file.tell() // step) * step
        self._tensors: dict[str, _Tensor] = {}
        length = self._path.stat().length
        for name, shape, kind, offset in told:
            if name in self._tensors:
                raise UserError(f"{self._path}: tensor {name} is there twice")
            self._tensors[name] = found = self._tensor(name, shape, kind, begin + offset)
            if found.begin + math.prod(found.stored) > length:
                raise UserError(f"{self._path} is cut short: the numbers of {name} lie beyond its end; copy it again")

    def _whole(self, name: str, default: int) -> int:
        found = self.metadata.get(name, default)
        if not isinstance(found, int) or found < 1:
            raise ValueError(f"{name} is {found!r}")
        return found

    def _tensor(self, name: str, shape: tuple[int, ...], number: int, begin: int) -> _Tensor:
        gguf = _library()
        try:
            kind = gguf.GGMLQuantizationType(number)
        except ValueError:
            kind = None
        if kind is None or kind.name not in _KINDS:
            stored = f"type {number}" if kind is None else kind.name
            raise UserError(f"{self.where}: tensor {name} is stored as {stored}; known: {', '.join(sorted(_KINDS))}")
        return _Tensor(shape, kind, begin, gguf.quant_shape_to_byte_shape(shape, kind))

    @functools.cached_property
    def architecture(self) -> str:
        """The kind of the model."""
        found = self.metadata.get("general.architecture")
        if not isinstance(found, str):
            raise UserError(f"{self.where} has no general.architecture: is it a model?")
        return found

    def listed(self, name: str) -> list[Any]:
        """Return the elements of a list of the metadata."""
        found = self.metadata[name]
        with self._path.open("rb") as file:
            file.seek(found.begin)
            return [_value(file, found.form) for _ in range(found.count)]

    def dtypes(self) -> dict[str, int]:
        """Return how many tensors there are of each type of numbers."""
        found: dict[str, int] = {}
        for tensor in self._tensors.values():
            found[tensor.kind.name] = found.get(tensor.kind.name, 0) + 1
        return found

    def read(self, name: str) -> np.ndarray:
        """Return a tensor as floats."""
        tensor = self._tensors[name]
        data = np.fromfile(self._path, np.uint8, math.prod(tensor.stored), offset=tensor.begin).reshape(tensor.stored)
        return _library().dequantize(data, tensor.kind).reshape(tensor.shape)


def _library() -> Any:
    try:
        import gguf  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise faults.missing_library("gguf", "a GGUF file") from error
    return gguf


def _unpack(file: IO[bytes], form: str) -> tuple[Any, ...]:
    form = f"<{form}"
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _text(file: IO[bytes]) -> str:
    (size,) = _unpack(file, "Q")
    if size > 1 << 30:
        raise ValueError("a text of more than a gigabyte")
    content = file.read(size)
    if len(content) < size:
        raise ValueError("the file ends within a text")
    return content.decode(errors="replace")


def _value(file: IO[bytes], form: int) -> Any:
    if form == _STRING:
        return _text(file)
    return _unpack(file, _SCALARS[form])[0]


def _entry(file: IO[bytes]) -> tuple[str, Any]:
    """Return a name and a value of the metadata; a list is passed over."""
    name = _text(file)
    (form,) = _unpack(file, "I")
    if form != _ARRAY:
        if form not in _SCALARS and form != _STRING:
            raise ValueError(f"values of form {form} are not known")
        return name, _value(file, form)
    form, count = _unpack(file, "IQ")
    found = Listed(count, form, file.tell())
    if form == _STRING:
        for _ in range(count):
            (size,) = _unpack(file, "Q")
            file.seek(size, 1)
    elif form in _SCALARS:
        file.seek(count * struct.calcsize(f"<{_SCALARS[form]}"), 1)
    else:
        raise ValueError(f"lists of form {form} are not known")
    return name, found


def _told(file: IO[bytes]) -> tuple[str, tuple[int, ...], int, int]:
    """Return name, shape, type and offset of a tensor; the file has the innermost axis first."""
    name = _text(file)
    (axes,) = _unpack(file, "I")
    if axes > 4:
        raise ValueError(f"a tensor of {axes} axes")
    shape = _unpack(file, f"{axes}Q")[::-1]
    kind, offset = _unpack(file, "IQ")
    return name, shape, kind, offset
