"""Models written as Hugging Face checkpoints: `config.json` and safetensors files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
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
        params: Layers stacked or as a list; written with the types of numbers that they have.
        config: Their shape.
        folder: Made where it is missing.
        shard_bytes: Bytes of weights of a file at most, but for a tensor that is larger.

    Raises:
        UserError: No known family has models of this shape.
    """
    family = known.of_shape(config)
    folder = resolve(folder, "the folder to export to", kind="folder")
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[list[Slot]] = [[]]
    room = shard_bytes
    for slot in slots(config, family.tensors):
        size = _bytes(params, slot)
        if size > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(slot)
        room -= size
    names = [safetensors_files.WEIGHTS]
    if len(shards) > 1:
        names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for name, group in zip(names, shards, strict=True):
        told = {slot.name: (_TYPES[_dtype(params, slot).name], slot.transform.stored(slot.shape)) for slot in group}
        safetensors_files.write(folder / name, told, _written(params, group))
    if len(shards) > 1:
        total = sum(_bytes(params, slot) for group in shards for slot in group)
        places = {slot.name: name for name, group in zip(names, shards, strict=True) for slot in group}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_bytes(folder / safetensors_files.INDEX, json.dumps(index, indent=2).encode())
    described = {
        "architectures": [family.architectures[0]],
        "model_type": family.model_types[0],
        "torch_dtype": _dtype(params, shards[0][0]).name,
        **family.to_hf(config),
    }
    write_bytes(folder / CONFIG, json.dumps(described, indent=2).encode())


def _written(params: Params, group: list[Slot]) -> Iterator[np.ndarray]:
    for slot in group:
        found = _found(params, slot)
        stacked = slot.layer is not None and not isinstance(params["layers"], list)
        yield slot.transform.write(np.asarray(found[slot.layer] if stacked else found))


def _bytes(params: Params, slot: Slot) -> int:
    return math.prod(slot.shape) * _dtype(params, slot).itemsize


def _dtype(params: Params, slot: Slot) -> np.dtype:
    return np.dtype(_found(params, slot).dtype)


def _found(params: Params, slot: Slot) -> Any:
    """Return the array of a parameter, or of all layers where they are stacked."""
    node: Any = params
    for key in slot.path.split("/"):
        node = node[key]
        if key == "layers" and isinstance(node, list):
            node = node[slot.layer or 0]
    return node
