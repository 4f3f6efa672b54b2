"""ttcjax: test-time compute for language models in JAX.

What a program needs stands here, and is imported when it is asked for: `import ttcjax` reads nothing but this file.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ttcjax import search as search
    from ttcjax.config import ExperimentConfig as ExperimentConfig
    from ttcjax.config import SamplerConfig as SamplerConfig
    from ttcjax.config.load import load_config as load_config
    from ttcjax.config.load import override as override
    from ttcjax.data.sets import DataSet as DataSet
    from ttcjax.data.sets import data_set as data_set
    from ttcjax.data.task import Example as Example
    from ttcjax.data.task import Task as Task
    from ttcjax.engine.loading import load_engine as load_engine
    from ttcjax.pipeline.run import run as run
    from ttcjax.pipeline.solve import solve as solve
    from ttcjax.pipeline.study import study as study
    from ttcjax.runtime.errors import UserError as UserError
    from ttcjax.search.contract import Strategy as Strategy
    from ttcjax.text.steps import StepFormat as StepFormat
    from ttcjax.verify.verifier import Verifier as Verifier

_PLACES = {
    "DataSet": "ttcjax.data.sets",
    "Example": "ttcjax.data.task",
    "ExperimentConfig": "ttcjax.config",
    "SamplerConfig": "ttcjax.config",
    "StepFormat": "ttcjax.text.steps",
    "Strategy": "ttcjax.search.contract",
    "Task": "ttcjax.data.task",
    "UserError": "ttcjax.runtime.errors",
    "Verifier": "ttcjax.verify.verifier",
    "data_set": "ttcjax.data.sets",
    "load_config": "ttcjax.config.load",
    "load_engine": "ttcjax.engine.loading",
    "override": "ttcjax.config.load",
    "run": "ttcjax.pipeline.run",
    "solve": "ttcjax.pipeline.solve",
    "study": "ttcjax.pipeline.study",
}

__all__ = [
    "DataSet",
    "Example",
    "ExperimentConfig",
    "SamplerConfig",
    "StepFormat",
    "Strategy",
    "Task",
    "UserError",
    "Verifier",
    "data_set",
    "load_config",
    "load_engine",
    "override",
    "run",
    "search",
    "solve",
    "study",
]


def __getattr__(name: str) -> Any:
    if name == "search":
        return importlib.import_module("ttcjax.search")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'ttcjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
