"""Tiny models that Hugging Face transformers has made and run; see `references/make_family_references.py`."""

import functools
import json
import math
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy

FILE = pathlib.Path(__file__).parent / "references" / "families.npz"


@dataclass(frozen=True)
class Reference:
    config: dict[str, Any]
    """Its `config.json` in the form that most published models have it in."""
    config_new: dict[str, Any]
    """The same as the library writes it today."""
    tensors: dict[str, np.ndarray]
    tokens: np.ndarray
    logits: np.ndarray

    def write(self, folder: pathlib.Path, *, new: bool = False, **changed: Any) -> pathlib.Path:
        """Write the checkpoint by another library than the one under test; `changed` goes into its `config.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {**(self.config_new if new else self.config), **changed}
        (folder / "config.json").write_text(json.dumps(config))
        safetensors.numpy.save_file(self.tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder


@functools.cache
def load(name: str) -> Reference:
    with np.load(FILE) as file:
        told = json.loads(str(file[f"{name}/told"]))
        numbers = file[f"{name}/numbers"].astype(np.float32) / 64
        tokens, logits = file[f"{name}/tokens"], file[f"{name}/logits"]
    tensors, begin = {}, 0
    for key, shape in told["shapes"].items():
        size = math.prod(shape)
        tensors[key] = numbers[begin : begin + size].reshape(shape)
        begin += size
    return Reference(told["config"], told["config_new"], tensors, tokens, logits)


def names() -> list[str]:
    with np.load(FILE) as file:
        return sorted({key.partition("/")[0] for key in file.files})
