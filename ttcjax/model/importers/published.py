"""Models of other makers by name: opened without reading weights, looked at, and loaded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from etils import epath

from ttcjax.config import ModelConfig
from ttcjax.model.families import known
from ttcjax.model.families.layout import Family
from ttcjax.model.families.settings import Settings
from ttcjax.model.importers import gguf_metadata, mapping, safetensors_files
from ttcjax.model.importers.export import CONFIG
from ttcjax.model.importers.gguf_file import GgufFile
from ttcjax.model.importers.mapping import Matched, Put, Tensors
from ttcjax.model.params import Params
from ttcjax.runtime import faults
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_there, resolve

Kind = Literal["hf", "gguf", "orbax"]
Dtype = Literal["float32", "bfloat16"]
FORMS = "hf:FOLDER (config.json and safetensors files), gguf:FILE or orbax:FOLDER (what ttcjax itself has written)"


@dataclass(frozen=True)
class Place:
    """Path and form of a model."""

    kind: Kind
    path: epath.Path

    def __str__(self) -> str:
        return f"{self.kind}:{os.fspath(self.path)}"


def place(name: str) -> Place | None:
    """Return the place that a model's name gives; `None` for the name of a stage.

    Args:
        name: As `FORMS` says, or of a stage of a workdir, such as `policy`.

    Raises:
        UserError: The path is empty, or a folder where a file is due or the other way round.
    """
    kind, found, path = name.partition(":")
    if not found or not re.fullmatch(r"[a-z]+", kind) or path.startswith("//"):
        return None
    if kind not in get_args(Kind):
        raise UserError(f"{name}: {kind}: is no form of a model; known: {FORMS}")
    return Place(kind, resolve(path, f"the path after {kind}:", kind="file" if kind == "gguf" else "folder"))  # type: ignore[arg-type]


def recognise(name: str) -> Place:
    """Return the place of a model that is named as for `place`, or by a path alone, which is looked at.

    Raises:
        UserError: Nothing is there, or nothing that is a model.
    """
    found = place(name)
    if found is not None:
        return found
    path = resolve(name, "the model")
    if not is_there(path):
        raise UserError(f"there is no model at {path}")
    if not path.is_dir():
        return Place("gguf", path)
    if is_there(path / CONFIG):
        return Place("hf", path)
    if is_there(path / "best"):  # The folder of a stage.
        path = path / "best"
    if is_there(path / "metadata.json"):
        return Place("orbax", path)
    raise UserError(f"{path} holds no model: neither {CONFIG} nor a model of ttcjax; a model is {FORMS}")


@dataclass(frozen=True)
class Published:
    """A model of another maker, its weights not read yet."""

    place: Place
    family: Family
    config: ModelConfig
    """Its shape; activations are float32."""
    settings: Settings
    """Its `config.json`, or what stands for it."""
    tensors: Tensors
    matched: Matched
    """Its tensors, and what keeps it from being loaded."""
    metadata: Mapping[str, Any]
    """Of a GGUF file."""

    def load(self, dtype: Dtype = "float32", put: Put = np.asarray, *, stacked: bool = False) -> Params:
        """Return the parameters, read one tensor at a time; see `ttcjax.model.importers.mapping.read`.

        Args:
            dtype: Of the parameters.
            put: Makes of each array what the tree holds.
            stacked: Return layers `[L, ...]`, not as a list.

        Raises:
            UserError: A tensor is missing, unexpected, there twice, of another shape, or cannot be read.
        """
        layers = self.config.num_layers
        return mapping.read(self.matched, self.tensors, jnp.dtype(dtype), layers, put, stacked=stacked)


def open_published(where: Place) -> Published:
    """Read what a model of another maker says of itself, and compare it with the names and shapes of its tensors.

    Raises:
        UserError: Files are missing or damaged, or the family or an option of it is not known. Faults of single tensors
            are told by `Published.matched`.
    """
    if where.kind == "orbax":
        raise ValueError("a model of this library is loaded by ttcjax.runtime.checkpoint")
    if not is_there(where.path):
        raise UserError(f"there is no model at {where.path}")
    return _open_gguf(where) if where.kind == "gguf" else _open_folder(where)


def _open_folder(where: Place) -> Published:
    path = where.path / CONFIG
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError("it is no table")
    except FileNotFoundError as error:
        raise UserError(f"no {CONFIG} in {where.path}: is it the folder of a model?") from error
    except ValueError as error:
        raise UserError(f"{path} is no table of JSON ({error}): copy it again") from error
    except OSError as error:
        faults.raise_explained(error)
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    settings = Settings(values, str(path))
    family = known.of_file(settings)
    family.check_architecture(settings)
    config = family.from_hf(settings)
    tensors = safetensors_files.open_folder(where.path)
    prefixes = family.prefixes
    if not any(name.startswith(("model.", *(old for old, _ in prefixes))) for name in tensors.shapes):
        # Written without a head, names begin inside the model.
        prefixes = (*prefixes, *((inside, f"model.{inside}") for inside in ("embed_tokens.", "layers.", "norm.")))
    matched = mapping.match(config, family.tensors, tensors, prefixes, family.ignored)
    return Published(where, family, config, settings, tensors, matched, {})


def _open_gguf(where: Place) -> Published:
    tensors = GgufFile(where.path)
    family = known.of_gguf(tensors.architecture, tensors.where)
    assert family.gguf is not None
    factors = tensors.read(gguf_metadata.ROPE_FACTORS) if gguf_metadata.ROPE_FACTORS in tensors.shapes else None
    settings = gguf_metadata.config_json(family, tensors.metadata, tensors.shapes, factors, tensors.where)
    config = family.from_hf(settings)
    ignored = (re.escape(gguf_metadata.ROPE_FACTORS),)
    matched = mapping.match(config, family.gguf.tensors, tensors, ignored=ignored)
    return Published(where, family, config, settings, tensors, matched, tensors.metadata)
