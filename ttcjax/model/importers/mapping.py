"""The tensors of a file put where a model has its parameters: every name accounted for, one tensor at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from flax import traverse_util

from ttcjax.config import ModelConfig
from ttcjax.model.families.tensors import Rule, Shape, Transform
from ttcjax.model.params import Params, spec
from ttcjax.runtime.errors import UserError

_HEAD = "unembed"


@runtime_checkable
class Tensors(Protocol):
    """Tensors by name, read one by one."""

    @property
    def where(self) -> str:
        """The path of the whole, for messages."""
        ...

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Those of all tensors."""
        ...

    def dtypes(self) -> dict[str, int]: ...

    def read(self, name: str) -> np.ndarray: ...


class Slot(NamedTuple):
    """A parameter of one layer, or of none, and the tensor that fills it."""

    path: str
    layer: int | None
    shape: Shape
    name: str
    """Of the tensor, in the table of the family."""
    transform: Transform


@dataclass(frozen=True)
class Matched:
    """Tensors that were found, and what is wrong with the rest."""

    slots: tuple[tuple[Slot, str], ...]
    """Each with the tensor's name in the file."""
    twin: str | None
    """A vocabulary head beside tied embeddings, which it must equal."""
    faults: tuple[str, ...]
    """What keeps the model from being read, each with the key."""


def slots(config: ModelConfig, rules: Sequence[Rule]) -> Iterator[Slot]:
    """Yield every parameter of a model, layer by layer.

    Raises:
        ValueError: The table has no line for one.
    """
    flat: dict[str, Any] = traverse_util.flatten_dict(spec(config), sep="/")
    by_path = {path: (pattern, transform) for pattern, path, transform in rules}
    if unnamed := sorted(set(flat) - set(by_path)):
        raise ValueError(f"the table of this family has no name for {unnamed[0]}")
    layered = [path for path in flat if path.startswith("layers/")]
    for path in flat:
        if path not in layered:
            yield Slot(path, None, flat[path].shape, by_path[path][0], by_path[path][1])
    for layer in range(config.num_layers):
        for path in layered:
            pattern, transform = by_path[path]
            yield Slot(path, layer, flat[path].shape[1:], pattern.format(layer), transform)


def match(
    config: ModelConfig,
    rules: Sequence[Rule],
    tensors: Tensors,
    prefixes: Iterable[tuple[str, str]] = (),
    ignored: Iterable[str] = (),
) -> Matched:
    """Find the tensor of every parameter, without reading any.

    Args:
        config: Shape of the model.
        rules: The table of its family.
        tensors: What there is.
        prefixes: Other beginnings of names, each with the one that it stands for.
        ignored: Patterns of names of tensors that are none of the model's.
    """
    faults: list[str] = []
    named: dict[str, str] = {}
    for name in tensors.shapes:
        plain = next((new + name.removeprefix(old) for old, new in prefixes if name.startswith(old)), name)
        if any(re.fullmatch(pattern, plain) for pattern in ignored):
            continue
        if plain in named:
            faults.append(f"tensor {plain} is there twice, as {named[plain]} and as {name}")
        named[plain] = name
    found: list[tuple[Slot, str]] = []
    missing: list[str] = []
    # What is missing of a model of absurdly many layers need not be listed to the end.
    for slot in slots(config, rules):
        name = named.pop(slot.name, None)
        due = slot.transform.stored(slot.shape)
        if name is None:
            missing.append(slot.name)
            if len(missing) > len(tensors.shapes) + 1000:
                break
        elif tensors.shapes[name] != due:
            shapes = f"{_shown(tensors.shapes[name])}, and its config makes that {_shown(due)}"
            faults.append(f"tensor {name} has shape {shapes}: config and weights are not of one model")
        else:
            found.append((slot, name))
    head = next(pattern for pattern, path, _ in rules if path == _HEAD)
    twin = named.pop(head, None) if config.tie_embeddings else None
    left = list(named.values())
    unexpected = [f"tensor {name} is unexpected{_others(left)}: the config has no place for it" for name in left[:1]]
    lacking = [f"tensor {name} is missing{_others(missing)}" for name in missing[:1]]
    return Matched(tuple(found), twin, (*lacking, *unexpected, *faults))


def _others(names: Any) -> str:
    more = len(names) - 1
    return f", and {more} other{'s' * (more > 1)}" if more else ""


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "()"


def require_whole(matched: Matched, where: str) -> None:
    """Refuse a model of which something is missing or left over.

    Raises:
        UserError: The first of its faults.
    """
    if matched.faults:
        raise UserError(f"{where}: {matched.faults[0]}")


Put = Callable[[np.ndarray], Any]


def read(
    matched: Matched, tensors: Tensors, dtype: Any, layers: int, put: Put = np.asarray, *, stacked: bool = False
) -> Params:
    """Return the parameters of a model.

    No more is in memory than what is returned, the tensor that is read, and what is made of it.

    Args:
        matched: All tensors of the model; see `require_whole`.
        tensors: Where they are.
        dtype: Of the parameters.
        layers: How many there are.
        put: Makes of each array what the tree holds, such as `jax.device_put`.
        stacked: Return layers `[L, ...]` as NumPy arrays, as checkpoints of this library hold them, not as a list.

    Raises:
        UserError: A tensor cannot be read, or tied embeddings have a head of their own that differs.
    """
    require_whole(matched, tensors.where)
    check_twin(matched, tensors)
    plain: dict[str, Any] = {}
    rows: list[dict[str, Any]] = [{} for _ in range(layers)]
    whole: dict[str, np.ndarray] = {}
    for slot, name in matched.slots:
        array = slot.transform.read(tensors.read(name), slot.shape, dtype)
        if slot.layer is None:
            plain[slot.path] = array if stacked else put(array)
        elif stacked:
            whole.setdefault(slot.path, np.empty((layers, *slot.shape), dtype))[slot.layer] = array
        else:
            rows[slot.layer][slot.path.removeprefix("layers/")] = put(array)
    if stacked:
        return traverse_util.unflatten_dict(plain | whole, sep="/")
    tree: Params = traverse_util.unflatten_dict(plain, sep="/")
    return tree | {"layers": [traverse_util.unflatten_dict(row, sep="/") for row in rows]}


def check_twin(matched: Matched, tensors: Tensors) -> None:
    """Refuse tied embeddings beside a head of its own that differs from them.

    Raises:
        UserError: It does.
    """
    twin = matched.twin
    if twin is None:
        return
    table = next(name for slot, name in matched.slots if slot.path == "embed")
    same = tensors.shapes[twin] == tensors.shapes[table] and np.array_equal(tensors.read(twin), tensors.read(table))
    if not same:
        raise UserError(
            f"{tensors.where}: tensor {twin} is there and differs from {table}, though tie_word_embeddings says that "
            "they are one: set it to false"
        )
