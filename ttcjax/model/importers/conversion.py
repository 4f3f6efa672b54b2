"""Models of other makers taken into a workdir, and models written for other programs, one tensor at a time."""

from __future__ import annotations

import re

import jax.numpy as jnp
import numpy as np
from etils import epath

from ttcjax.config import ModelConfig, from_dict
from ttcjax.model.importers import companions, mapping
from ttcjax.model.importers.export import export, write
from ttcjax.model.importers.mapping import Slot
from ttcjax.model.importers.published import Dtype, Place, Published, open_published
from ttcjax.runtime.checkpoint import load_params
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import free, is_there, resolve, resolve_workdir, write_bytes

FOLDER = "models"
"""Where a workdir has the models that were imported into it."""


def convert(source: Place, workdir: epath.PathLike, name: str = "policy", dtype: Dtype = "float32") -> Place:
    """Check a published model once, whole, and keep it in a workdir in one form and one type of numbers.

    Args:
        source: Where it lies.
        workdir: Of the run that is to use it.
        name: Its folder in `models` there; must be new.
        dtype: Of its parameters.

    Returns:
        Where it is kept: a folder of safetensors files, with the tokenizer's files beside them.

    Raises:
        UserError: As for `open_published` and `Published.load`, or something has that name.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"--name {name!r} must be a name of letters, digits, dots, dashes and underscores")
    folder = resolve_workdir(workdir) / FOLDER / name
    if is_there(folder):
        raise UserError(f"{folder} is there already: choose another --name, or move it away")
    model = open_published(source)
    mapping.require_whole(model.matched, model.tensors.where)
    partial = free(folder.parent / f"{name}.partial")
    try:
        _copy(model, partial, dtype)
        for file in companions.FILES if source.kind == "hf" else ():
            if is_there(source.path / file):
                write_bytes(partial / file, (source.path / file).read_bytes())
        partial.rename(folder)
    except BaseException:
        if is_there(partial):
            partial.rmtree()
        raise
    return Place("hf", folder)


def rewrite(source: Place, folder: epath.PathLike) -> None:
    """Write a model as a Hugging Face checkpoint, in the type of numbers that it has here; a GGUF file's are float32.

    Args:
        source: Where it lies.
        folder: New or empty.

    Raises:
        UserError: As for `open_published`, `load_params` and `export`, or the folder holds something.
    """
    folder = resolve(folder, "the folder to export to", kind="folder")
    if is_there(folder) and any(folder.iterdir()):
        raise UserError(f"{folder} holds something already: name a new folder")
    if source.kind == "orbax":
        params, metadata = load_params(source.path)
        if "value" in params:
            raise UserError(f"{source} is a verifier with a value head, for which other programs have no place")
        export(params, from_dict(ModelConfig, metadata["model"]), folder)
        return
    model = open_published(source)
    mapping.require_whole(model.matched, model.tensors.where)
    _copy(model, folder, "bfloat16" if set(model.tensors.dtypes()) == {"BF16"} else "float32")


def _copy(model: Published, folder: epath.Path, dtype: Dtype) -> None:
    mapping.check_twin(model.matched, model.tensors)
    names = {(slot.path, slot.layer): (slot, name) for slot, name in model.matched.slots}

    def number(slot: Slot) -> np.ndarray:
        found, name = names[slot.path, slot.layer]
        return found.transform.read(model.tensors.read(name), slot.shape, jnp.dtype(dtype))

    write(number, jnp.dtype(dtype), model.config, folder)
