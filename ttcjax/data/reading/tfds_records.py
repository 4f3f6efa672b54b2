"""Questions kept by TensorFlow Datasets, read without TensorFlow and given as the lines of a data set's own files."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from etils import epath

from ttcjax.runtime import faults
from ttcjax.runtime.errors import MachineError
from ttcjax.runtime.files import resolve


def lines(builder: str, fields: Sequence[str], split: str, folder: str | None) -> bytes:
    """Return the records of a split as JSON lines, in their order.

    They are downloaded and written as ArrayRecord files where `folder` does not hold them yet.

    Args:
        builder: Module and class of the builder, `module:Class`.
        fields: Fields that a line has.
        split: Name of the split.
        folder: Where TensorFlow Datasets keeps its records; `None` is its default.

    Raises:
        MachineError: They are not there, and cannot be downloaded or written.
    """
    import importlib

    import tensorflow_datasets as tfds  # a second, which other data sets do not pay

    from ttcjax.data.builder import quiet_tfds

    place = (
        os.fspath(resolve(folder, "--data.dir", kind="folder")) if folder is not None else tfds.core.constants.DATA_DIR
    )
    module, _, name = builder.partition(":")
    tfds.disable_progress_bar()
    try:
        with quiet_tfds():
            made = getattr(importlib.import_module(module), name)(data_dir=place, file_format="array_record")
            if not epath.Path(made.data_path).exists():
                with tempfile.TemporaryDirectory() as scratch:
                    made.download_and_prepare(download_dir=Path(scratch))
            records = made.as_data_source(split)
            return b"".join(
                json.dumps({key: record[key].decode() for key in fields}).encode() + b"\n"
                for record in (records[i] for i in range(len(records)))
            )
    except Exception as error:  # a download fails in as many ways as there are networks
        faults.raise_explained(error)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MachineError(
            f"TensorFlow Datasets cannot read or download its records in {place}: {reason[:200]}; give the data set's "
            "own files with --data.source files --data.dir FOLDER"
        ) from error
