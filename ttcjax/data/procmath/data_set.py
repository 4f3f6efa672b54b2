"""The embedded domain as a data set: generated, and kept as records of TensorFlow Datasets."""

from __future__ import annotations

from collections.abc import Mapping

from etils import epath

from ttcjax.config import DataConfig
from ttcjax.data import procmath
from ttcjax.data.screen import Fault
from ttcjax.data.sets import DataSet
from ttcjax.data.task import Splits

RECORDS = "records"


class Procmath(DataSet):
    """Questions that a seed decides."""

    task = procmath.TASK
    exact = True
    unlike = (RECORDS,)  # compressed by threads

    def prepare(self, config: DataConfig, folder: epath.Path, files: Mapping[str, bytes]) -> list[Fault]:
        from ttcjax.data import builder  # imports tfds, which is slow

        del files
        builder.prepare(config, folder / RECORDS)
        return []

    def load(self, config: DataConfig, folder: epath.Path) -> Splits:
        from ttcjax.data import builder

        return builder.load(config, folder / RECORDS)

    def files(self, config: DataConfig) -> list[str]:
        del config
        return [RECORDS]


DATA_SET = Procmath()
