"""Questions kept by TensorFlow Datasets, read without TensorFlow and given as the lines of a data set's own files."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from etils import epath

from ttcjax.runtime import faults
from ttcjax.runtime.errors import MachineError
from ttcjax.runtime.files import resolve


@dataclass(frozen=True)
class Records:
    """Builder of TensorFlow Datasets that has the questions of a data set."""

    builder: str
    """Its module and class, `module:Class`."""
    fields: tuple[str, ...]
    """Fields that a line of the data set's own files has."""
    host: str
    """Where the builder downloads from."""


def lines(records: Records, split: str, folder: str | None) -> bytes:
    """Return the records of a split as JSON lines, in their order.

    They are downloaded and written as ArrayRecord files where `folder` does not hold them yet.

    Args:
        records: What holds them.
        split: Name of the split.
        folder: Where TensorFlow Datasets keeps its records; `None` is its default.

    Raises:
        MachineError: They are not there, and cannot be downloaded or written.
    """
    import importlib

    import tensorflow_datasets as tfds  # a second, which other data sets do not pay

    from ttcjax.data.builder import quiet_tfds

    place = None if folder is None else os.fspath(resolve(folder, "--data.dir", kind="folder"))
    module, _, name = records.builder.partition(":")
    tfds.disable_progress_bar()
    try:
        with quiet_tfds():
            made = getattr(importlib.import_module(module), name)(data_dir=place, file_format="array_record")
            if not epath.Path(made.data_path).exists():
                require_network(records.host)
                with tempfile.TemporaryDirectory() as scratch:
                    made.download_and_prepare(download_dir=Path(scratch))
            source = made.as_data_source(split)
            return b"".join(
                json.dumps({key: record[key].decode() for key in records.fields}).encode() + b"\n"
                for record in (source[i] for i in range(len(source)))
            )
    except Exception as error:  # a download fails in as many ways as there are networks
        faults.raise_explained(error)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MachineError(
            f"TensorFlow Datasets cannot read or download its records in {place or 'its own folder'}: {reason[:200]}; "
            "give the data set's own files with --data.source files --data.dir FOLDER"
        ) from error


def require_network(host: str) -> None:
    """Refuse a download that cannot begin: TensorFlow Datasets tries again for minutes where there is no network.

    Raises:
        OSError: The host has no address here, and there is no proxy to ask for it.
    """
    if not urllib.request.getproxies():
        socket.getaddrinfo(host, 443)
