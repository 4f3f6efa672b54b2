"""The models that a run trained: how large they are and what their training took, and the prompts they read."""

from __future__ import annotations

import json
import math
from typing import Any, NotRequired, TypedDict

from etils import epath

from ttcjax.config import ModelConfig, Questions, from_dict
from ttcjax.data import loader
from ttcjax.model import flops as compute
from ttcjax.runtime import records
from ttcjax.text.prompt import encode_prompts
from ttcjax.verify import formats
from ttcjax.verify.verifier import Verifier


class Trained(TypedDict):
    """A model that a run trained."""

    params: int
    tokens_seen: int
    model: NotRequired[ModelConfig]
    """Its shape; not there where the checkpoint has been deleted."""
    judge: NotRequired[Verifier]
    """How it is asked, where it is a verifier."""
    data_flops: NotRequired[float]
    """FLOPs of sampling its data, logical; not there where nothing was sampled, or it is not known how much."""


SAMPLED = {
    "prm": (("labels", "policy"),),
    "base_orm": (("labels", "policy"),),
    "revision": (("trajectories", "policy"), ("revision", "revision")),
    "orm": (("attempts", "revision"),),
}
"""Stages that train on samples: the stages that made these, and the model that they were sampled from. With
ReST^EM the revision stage samples too."""


def models(workdir: epath.Path) -> dict[str, Trained] | None:
    """Return every model that a run trained, by the path of its stage.

    Returns:
        The models; `None` where the policy or its verifier was not trained here.

    Raises:
        UserError: A stage's record is corrupt, or a checkpoint's.
    """
    found: dict[str, Trained] = {}
    results = {stage: record.get("result") or {} for stage, record in records.of_stages(workdir).items()}
    for stage, result in results.items():
        nested = {f"/{key}": value for key, value in result.items() if isinstance(value, dict)}
        for name, value in {"": result, **nested}.items():
            if "params" in value and "tokens_seen" in value:
                trained = Trained(params=value["params"], tokens_seen=value["tokens_seen"])
                metadata = workdir / f"{stage}{name}" / "best" / "metadata.json"
                if metadata.exists():
                    about = _metadata(metadata)
                    trained["model"] = from_dict(ModelConfig, about["model"])
                    if judge := formats.read(about):
                        trained["judge"] = judge
                found[stage + name] = trained
    for name, model in found.items():
        if name.count("/") and not name.startswith("orm/"):
            continue  # The first of two trainings of a stage, whose data is the stage's.
        flops = [
            compute.inference(found[sampler]["params"], tokens)
            for made, sampler in SAMPLED.get(name.partition("/")[0], ())
            if sampler in found and (tokens := results.get(made, {}).get("sampled_tokens")) is not None
        ]
        if flops:
            model["data_flops"] = sum(flops)
    return found if "policy" in found and "prm" in found else None


def parameters(model: epath.Path) -> int:
    """Return how many parameters a model has, from the metadata in its folder; 0 where it is there no more.

    Raises:
        DamagedError: They do not say.
    """
    path = model / "metadata.json"
    if not path.exists():
        return 0
    try:
        return sum(math.prod(shape) for shape in json.loads(path.read_text())["shapes"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise records.damaged(path, "it is no table of JSON") from error


def _metadata(path: epath.Path) -> dict[str, Any]:
    """Return what a model's checkpoint says of it; its shape is under `model`."""
    try:
        found = json.loads(path.read_text())
        if not isinstance(found["model"], dict):
            raise ValueError("model is no table")
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise records.damaged(path, "it is no table of JSON") from error


def prompt_tokens(questions: Questions, folder: epath.Path) -> dict[str, int]:
    """Return the tokens of every test question's prompt, the begin mark included.

    Args:
        questions: What can be asked.
        folder: Of the data stage.
    """
    task, splits = loader.askable(questions, folder)
    tokenizer = loader.tokenizer(folder)
    examples = list(splits.test)
    encoded = encode_prompts(tokenizer, [task.prompt(e.question) for e in examples])
    return {e.id: len(ids) for e, ids in zip(examples, encoded, strict=True)}
