"""From a workdir's trained models, or from models of other makers, to an engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from ttcjax.config import ModelConfig, SamplerConfig, from_dict
from ttcjax.data import loader
from ttcjax.engine.engine import Engine, Model
from ttcjax.model.importers import companions
from ttcjax.model.importers.published import Dtype, Place, open_published, place
from ttcjax.model.params import Params
from ttcjax.runtime import faults, records
from ttcjax.runtime.checkpoint import load_params
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_there, resolve_workdir
from ttcjax.runtime.stage import Inputs
from ttcjax.text import tokenizer as tokenizers
from ttcjax.text.steps import LINES, StepFormat
from ttcjax.verify import formats


def load_model(inputs: Inputs, stage: str, tokenizer: tokenizers.Tokenizer) -> Model:
    """Load the model that a stage trained, or for stages that train several, `stage/name`.

    Args:
        inputs: Has the folder of the stage.
        stage: Its name.
        tokenizer: With which the model was trained.

    Raises:
        UserError: The stage is missing, its checkpoint is corrupt, or was trained with another tokenizer or as
            something else.
    """
    name, _, variant = stage.partition("/")
    folder = inputs[name] / variant
    if records.read_complete(inputs[name]) is not None and not is_there(folder / "best"):
        raise records.damaged(folder / "best", "it is gone")
    params, metadata = load_params(folder / "best", tokenizer)
    if metadata["kind"] != name:
        raise UserError(
            f"the model in {folder} is a {metadata['kind']}, not a {name}: name the workdir of a run that "
            f"trained a {name}"
        )
    return model_of(params, metadata)


def load_verifier(folder: epath.Path, tokenizer: tokenizers.Tokenizer) -> Model:
    """Load a verifier, whoever trained it, from the folder of its model.

    Raises:
        UserError: There is none, it is corrupt, is no verifier, or was trained with another tokenizer.
    """
    params, metadata = load_params(folder, tokenizer)
    found = model_of(params, metadata)
    if found.judge is None:
        raise UserError(f"the model in {folder} is a {metadata.get('kind')} and no verifier: name a verifier's folder")
    return found


def load_published(where: Place, dtype: Dtype = "float32") -> Model:
    """Load a model that is no stage's.

    Args:
        where: Its place.
        dtype: Of parameters and activations of a model of another maker; one of this library keeps its own.

    Raises:
        UserError: Files are missing or damaged, or it is a model that is not known; see
            `ttcjax.model.importers.published`.
    """
    if where.kind == "orbax":
        return model_of(*load_params(where.path))
    found = open_published(where)
    # On the device at once: a host's copy of every tensor would double what is needed.
    return Model(found.load(dtype, jax.device_put), dataclasses.replace(found.config, dtype=dtype))


def model_of(params: Params, metadata: Mapping[str, Any]) -> Model:
    """Return a model as its checkpoint's metadata tells of it; see `ttcjax.runtime.checkpoint.load_params`.

    Raises:
        UserError: It is a verifier of an unknown kind.
    """
    config = from_dict(ModelConfig, metadata["model"])
    return Model(params, config, metadata.get("tokenizer"), formats.read(metadata))


@faults.explained()
def load_engine(
    workdir: epath.PathLike | Inputs | None,
    sampler: SamplerConfig,
    *,
    policy: str = "policy",
    verifier: str | epath.Path | None = "prm",
    steps: StepFormat = LINES,
    tokenizer: tokenizers.Tokenizer | None = None,
    dtype: Dtype = "float32",
) -> Engine:
    """Load the tokenizer, a policy and a verifier, of a workdir or of other makers.

    Args:
        workdir: Of the run that trained them; in a stage, what it reads; `None` where neither is a stage's.
        sampler: Settings of the engine.
        policy: The stage that trained the policy, or `hf:FOLDER`, `gguf:FILE` or `orbax:FOLDER`.
        verifier: The stage that trained the verifier, as in `load_model`, `orbax:FOLDER`, or the folder of its model,
            as a path; `None` for an engine without one.
        steps: The task's `steps`.
        tokenizer: In place of the one of the data stage, or for a policy of another maker, of the one beside it.
        dtype: Of parameters and activations of `hf:` and `gguf:` models.

    Raises:
        UserError: A stage or file is missing, a checkpoint is corrupt, or it was trained with another tokenizer.
    """
    trained = verifier if isinstance(verifier, str) else None
    wanted = {stage: place(stage) for stage in (policy, trained) if stage}
    if workdir is None and (own := [stage for stage, where in wanted.items() if where is None]):
        raise UserError(f"{own[0]} is the name of a stage: give the workdir that has it")
    names = ("data", *(stage.partition("/")[0] for stage, where in wanted.items() if where is None))
    if workdir is None or isinstance(workdir, Inputs):
        inputs = workdir
    else:
        inputs = Inputs.of(resolve_workdir(workdir, "the workdir"), names)
    if tokenizer is None:
        where = wanted[policy]
        if where is not None:
            tokenizer = companions.tokenizer(where)
        else:
            assert inputs is not None
            tokenizer = loader.tokenizer(inputs["data"])

    def load(stage: str) -> Model:
        where = wanted[stage]
        if where is not None:
            return load_published(where, dtype)
        assert inputs is not None
        return load_model(inputs, stage, tokenizer)

    if isinstance(verifier, str):
        scorer = load(verifier)
    else:
        scorer = None if verifier is None else load_verifier(verifier, tokenizer)
    return Engine(load(policy), tokenizer, sampler, verifier=scorer, steps=steps)
