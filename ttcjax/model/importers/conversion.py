"""Models of other makers kept as this library keeps its own."""

from __future__ import annotations

import dataclasses
import os
import re

from etils import epath

from ttcjax.config import ModelConfig, from_dict, to_dict
from ttcjax.model.importers import companions, mapping
from ttcjax.model.importers.export import export
from ttcjax.model.importers.published import Dtype, Place, Published, open_published
from ttcjax.runtime.checkpoint import load_params, save_params
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import free, is_there, resolve, resolve_workdir, write_bytes

FOLDER = "models"
"""Where a workdir has the models that were imported into it."""


def convert(source: Place, workdir: epath.PathLike, name: str = "policy", dtype: Dtype = "float32") -> epath.Path:
    """Read a published model once and write it as a checkpoint, in memory no more than it and its largest tensor twice.

    Args:
        source: Where it lies.
        workdir: Of the run that is to use it.
        name: Its folder in `models` there; must be new.
        dtype: Of its parameters and of activations.

    Returns:
        The folder, a model named `orbax:FOLDER`, with the tokenizer's files beside the parameters.

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
        partial.mkdir(parents=True)
        for file in companions.FILES if source.kind == "hf" else ():
            if is_there(source.path / file):
                write_bytes(partial / file, (source.path / file).read_bytes())
        save_params(partial, model.load(dtype, stacked=True), _metadata(model, dtype))
        partial.rename(folder)
    except BaseException:
        if is_there(partial):
            partial.rmtree()
        raise
    return folder


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
    dtype = "bfloat16" if set(model.tensors.dtypes()) == {"BF16"} else "float32"
    export(model.load(dtype), model.config, folder)


def _metadata(model: Published, dtype: Dtype) -> dict[str, object]:
    return {
        "kind": "policy",
        "model": to_dict(dataclasses.replace(model.config, dtype=dtype)),
        "tokenizer": None,
        "step": 0,
        "family": model.family.name,
        "source": f"{model.place.kind}:{os.fspath(model.place.path)}",
    }
