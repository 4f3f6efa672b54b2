"""From a workdir's trained models to an engine."""

from __future__ import annotations

from etils import epath

from ttcjax.config import ModelConfig, SamplerConfig, from_dict
from ttcjax.data import loader
from ttcjax.engine.engine import Engine, Model
from ttcjax.runtime import faults, records
from ttcjax.runtime.checkpoint import load_params
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_there, resolve_workdir
from ttcjax.text import tokenizer as tokenizers
from ttcjax.text.steps import LINES, StepFormat


def load_model(workdir: epath.Path, stage: str, tokenizer: tokenizers.Tokenizer) -> Model:
    """Load the model that a stage trained, or for stages that train several, `stage/name`.

    Raises:
        UserError: The stage is missing, its checkpoint is corrupt, or was trained with another tokenizer or as
            something else.
    """
    name = stage.partition("/")[0]
    if records.read_complete(workdir / name) is not None and not is_there(workdir / stage / "best"):
        raise records.damaged(workdir / stage / "best", "it is gone")
    params, metadata = load_params(workdir / stage / "best", tokenizer)
    if metadata["kind"] != name:
        raise UserError(
            f"the model in {workdir / stage} is a {metadata['kind']}, not a {name}: name the workdir of a run that "
            f"trained a {name}"
        )
    return Model(params, from_dict(ModelConfig, metadata["model"]), metadata.get("tokenizer"))


@faults.explained()
def load_engine(
    workdir: epath.PathLike,
    sampler: SamplerConfig,
    *,
    policy: str = "policy",
    verifier: str | None = "prm",
    steps: StepFormat = LINES,
) -> Engine:
    """Load the tokenizer, a policy and a verifier of a workdir.

    Args:
        workdir: Of the run that trained them.
        sampler: Settings of the engine.
        policy: The stage that trained the policy.
        verifier: The stage that trained the verifier, as in `load_model`; `None` for an engine without one.
        steps: The task's `steps`.

    Raises:
        UserError: A stage is missing, a checkpoint is corrupt, or it was trained with another tokenizer.
    """
    workdir = resolve_workdir(workdir, "the workdir")
    tokenizer = loader.tokenizer(workdir)
    scorer = load_model(workdir, verifier, tokenizer) if verifier else None
    return Engine(load_model(workdir, policy, tokenizer), tokenizer, sampler, verifier=scorer, steps=steps)
