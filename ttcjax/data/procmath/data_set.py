"""The embedded domain as a data set: generated, and kept as records of TensorFlow Datasets."""

from __future__ import annotations

from collections.abc import Mapping

from etils import epath

from ttcjax.config import DataConfig
from ttcjax.data import procmath
from ttcjax.data.procmath.generate import Split, form_of
from ttcjax.data.screen import Fault
from ttcjax.data.sets import DataSet
from ttcjax.data.task import Example, Examples, Splits
from ttcjax.runtime.errors import UserError

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

    def form(self, example: Example) -> str:
        return form_of(example.subject, example.question)

    def pools(self, config: DataConfig) -> tuple[Examples, Examples]:
        def made(split: Split, count: int) -> list[Example]:
            drawn = procmath.generate(split, count, config.seed, config.families, check_lines=config.check_lines)
            try:
                return list(drawn)
            except ValueError as error:  # it has not as many questions as asked for
                raise UserError(str(error)) from error

        pool = [*made("train", config.num_train), *made("valid", config.num_valid)]
        return pool, made("test", config.num_test)

    def files(self, config: DataConfig) -> list[str]:
        del config
        return [RECORDS]


DATA_SET = Procmath()
