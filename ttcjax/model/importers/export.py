"""Models written as Hugging Face checkpoints: `config.json` and safetensors files, one tensor at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath

from ttcjax.config import ModelConfig
from ttcjax.model.families import known
from ttcjax.model.importers import safetensors_files
from ttcjax.model.importers.mapping import Slot, slots
from ttcjax.model.params import Params
from ttcjax.runtime.files import resolve, write_bytes

CONFIG = "config.json"
_TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_SHARD = 5 * 10**9  # bytes


def export(params: Params, config: ModelConfig, folder: epath.PathLike, *, shard_bytes: int = _SHARD) -> None:
    """Write a model with a vocabulary head as `config.json` and `model.safetensors`, or several files and their index.

    Args:
        params: Layers stacked or as a list; written with the type of numbers that its embeddings have.
        config: Their shape.
        folder: Made where it is missing.
        shard_bytes: Bytes of weights of a file at most, but for a tensor that is larger.

    Raises:
        UserError: No known family has models of this shape.
    """

    def number(slot: Slot) -> np.ndarray:
        found = _found(params, slot)
        stacked = slot.layer is not None and not isinstance(params["layers"], list)
        return np.asarray(found[slot.layer] if stacked else found)

    write(number, np.dtype(params["embed"].dtype), config, folder, shard_bytes=shard_bytes)


def write(
    numbers: Callable[[Slot], np.ndarray],
    dtype: Any,
    config: ModelConfig,
    folder: epath.PathLike,
    *,
    shard_bytes: int = _SHARD,
) -> None:
    """Write a model as `export` does, from parameters that are asked for one by one.

    Args:
        numbers: Returns the parameter of a place in the model.
        dtype: Of what is written.
        config: The model's shape.
        folder: Made where it is missing.
        shard_bytes: As in `export`.

    Raises:
        UserError: As in `export`.
    """
    family, dtype = known.of_shape(config), np.dtype(dtype)
    folder = resolve(folder, "the folder to export to", kind="folder")
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[list[Slot]] = [[]]
    room = shard_bytes
    for slot in slots(config, family.tensors):
        size = math.prod(slot.shape) * dtype.itemsize
        if size > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(slot)
        room -= size
    names = [safetensors_files.WEIGHTS]
    if len(shards) > 1:
        names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for name, group in zip(names, shards, strict=True):
        told = {slot.name: (_TYPES[dtype.name], slot.transform.stored(slot.shape)) for slot in group}
        safetensors_files.write(folder / name, told, _written(numbers, group))
    if len(shards) > 1:
        total = sum(math.prod(slot.shape) for group in shards for slot in group) * dtype.itemsize
        places = {slot.name: name for name, group in zip(names, shards, strict=True) for slot in group}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_bytes(folder / safetensors_files.INDEX, json.dumps(index, indent=2).encode())
    described = {
        "architectures": [family.architectures[0]],
        "model_type": family.model_types[0],
        "torch_dtype": dtype.name,
        **family.to_hf(config),
    }
    write_bytes(folder / CONFIG, json.dumps(described, indent=2).encode())


def _written(numbers: Callable[[Slot], np.ndarray], group: list[Slot]) -> Iterator[np.ndarray]:
    for slot in group:
        yield slot.transform.write(numbers(slot))


def _found(params: Params, slot: Slot) -> Any:
    """Return the array of a parameter, or of all layers where they are stacked."""
    node: Any = params
    for key in slot.path.split("/"):
        node = node[key]
        if key == "layers" and isinstance(node, list):
            node = node[slot.layer or 0]
    return node
