"""Every setting of an experiment: its name, unit, default and the values it may take.

The dataclasses in this package are the only place where settings are declared. Files in `configs/` build an
`ExperimentConfig`, the command line overrides its fields by the same names, and the resolved config is written as JSON
beside every result. All of them are frozen and hashable, so a `ModelConfig` or a `SamplerConfig` can be a static
argument of a jitted function.
"""

from __future__ import annotations

from ttcjax.config.base import SPEED_ONLY as SPEED_ONLY
from ttcjax.config.base import ConfigError as ConfigError
from ttcjax.config.base import from_dict as from_dict
from ttcjax.config.base import hashed as hashed
from ttcjax.config.base import require as require
from ttcjax.config.base import require_list as require_list
from ttcjax.config.base import to_dict as to_dict
from ttcjax.config.convention import Convention as Convention
from ttcjax.config.data import DataConfig as DataConfig
from ttcjax.config.data import DraftsConfig as DraftsConfig
from ttcjax.config.data import FieldsConfig as FieldsConfig
from ttcjax.config.data import Questions as Questions
from ttcjax.config.data import procmath_subjects as procmath_subjects
from ttcjax.config.experiment import ExperimentConfig as ExperimentConfig
from ttcjax.config.experiment import LabelConfig as LabelConfig
from ttcjax.config.experiment import LargerConfig as LargerConfig
from ttcjax.config.experiment import PRMConfig as PRMConfig
from ttcjax.config.experiment import ReSTConfig as ReSTConfig
from ttcjax.config.experiment import RevisionConfig as RevisionConfig
from ttcjax.config.experiment import SamplerConfig as SamplerConfig
from ttcjax.config.experiment import SweepConfig as SweepConfig
from ttcjax.config.experiment import TokenizerConfig as TokenizerConfig
from ttcjax.config.experiment import TrajectoryConfig as TrajectoryConfig
from ttcjax.config.experiment import config_hash as config_hash
from ttcjax.config.model import ModelConfig as ModelConfig
from ttcjax.config.model import RopeScaling as RopeScaling
from ttcjax.config.reviser import ChainsConfig as ChainsConfig
from ttcjax.config.reviser import InView as InView
from ttcjax.config.reviser import ORMConfig as ORMConfig
from ttcjax.config.scoring import Aggregation as Aggregation
from ttcjax.config.scoring import OwnVerifier as OwnVerifier
from ttcjax.config.train import OptimizerConfig as OptimizerConfig
from ttcjax.config.train import TrainConfig as TrainConfig
