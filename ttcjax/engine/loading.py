"""From a workdir's trained models to an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath

from ttcjax.config import ModelConfig, SamplerConfig, from_dict
from ttcjax.data import loader
from ttcjax.engine.engine import Engine, Model
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


def model_of(params: Params, metadata: Mapping[str, Any]) -> Model:
    """Return a model as its checkpoint's metadata tells of it; see `ttcjax.runtime.checkpoint.load_params`.

    Raises:
        UserError: It is a verifier of an unknown kind.
    """
    config = from_dict(ModelConfig, metadata["model"])
    return Model(params, config, metadata.get("tokenizer"), formats.read(metadata))


@faults.explained()
def load_engine(
    workdir: epath.PathLike | Inputs,
    sampler: SamplerConfig,
    *,
    policy: str = "policy",
    verifier: str | epath.Path | None = "prm",
    steps: StepFormat = LINES,
) -> Engine:
    """Load the tokenizer, a policy and a verifier of a workdir.

    Args:
        workdir: Of the run that trained them; in a stage, what it reads.
        sampler: Settings of the engine.
        policy: The stage that trained the policy.
        verifier: The stage that trained the verifier, as in `load_model`, or the folder of its model, as a path; `None`
            for an engine without one.
        steps: The task's `steps`.

    Raises:
        UserError: A stage is missing, a checkpoint is corrupt, or it was trained with another tokenizer.
    """
    trained = verifier if isinstance(verifier, str) else None
    names = ("data", *(stage.partition("/")[0] for stage in (policy, trained) if stage))
    inputs = workdir if isinstance(workdir, Inputs) else Inputs.of(resolve_workdir(workdir, "the workdir"), names)
    tokenizer = loader.tokenizer(inputs["data"])
    scorer = None
    if isinstance(verifier, str):
        scorer = load_model(inputs, verifier, tokenizer)
    elif verifier is not None:
        scorer = load_verifier(verifier, tokenizer)
    return Engine(load_model(inputs, policy, tokenizer), tokenizer, sampler, verifier=scorer, steps=steps)
