"""From a workdir's trained models to an engine."""

from __future__ import annotations

from etils import epath

from ttcjax.checkpoint import load_params
from ttcjax.config import ModelConfig, SamplerConfig, from_dict
from ttcjax.errors import UserError
from ttcjax.sample.engine import Engine, Model
from ttcjax.text import tokenizer as tokenizers


def load_engine(workdir: epath.PathLike, sampler: SamplerConfig, *, verifier: bool = True) -> Engine:
    """Load the tokenizer, the policy and, with `verifier`, the PRM of a workdir.

    Raises:
        UserError: A stage is missing, a checkpoint is corrupt, or it was trained with another tokenizer.
    """
    workdir = epath.Path(workdir)
    tokenizer = tokenizers.load(workdir / "data" / "tokenizer.model")

    def model(stage: str) -> Model:
        params, metadata = load_params(workdir / stage / "best", tokenizer)
        if metadata["kind"] != stage:
            raise UserError(
                f"the model in {workdir / stage} is a {metadata['kind']}, not a {stage}: "
                f"delete {workdir / stage} and run the {stage} stage again"
            )
        return Model(params, from_dict(ModelConfig, metadata["model"]))

    return Engine(model("policy"), tokenizer, sampler, verifier=model("prm") if verifier else None)
