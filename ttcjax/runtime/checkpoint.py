"""Training state and trained parameters on disk: written atomically, checked when read.

A training folder holds

    checkpoints/<step>/   state and host values of one step, the latest few (Orbax)
    best/                 params and metadata.json, those that validation picked

A checkpoint folder gets its final name only when it is complete. Orbax notices truncated data but not changed
bits, and reports either in many lines, so a list of sizes and checksums is kept beside the data and checked first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from ttcjax.parallel import all_devices
from ttcjax.runtime import faults, records
from ttcjax.runtime.errors import DamagedError, UserError
from ttcjax.runtime.files import free, is_there, resolve_workdir, write_bytes

logger = logging.getLogger(__name__)

_SEAL = "files.json"
_METADATA = "metadata.json"
_TIMES = "_CHECKPOINT_METADATA"
"""Orbax's own, which gets the time of the last renaming after it."""


@runtime_checkable
class Fingerprinted(Protocol):
    """Tokenizer, as far as checkpoints need it: its fingerprint."""

    @property
    def fingerprint(self) -> str: ...


class Checkpoints:
    """The checkpoints of one training run.

    Args:
        folder: The training folder.
        keep: Latest checkpoints that are kept.
        fingerprint: Identifies the configuration; a checkpoint with another one is refused.
    """

    def __init__(self, folder: epath.PathLike, *, keep: int, fingerprint: str):
        self._folder = resolve_workdir(folder, "the training folder")
        self._steps_folder = self._folder / "checkpoints"
        self._fingerprint = fingerprint
        self._saving: int | None = None
        self._steps_folder.mkdir(parents=True, exist_ok=True)
        old_best = self._folder / "best.old"
        if is_there(old_best) and not is_there(self._folder / "best"):
            old_best.rename(self._folder / "best")  # A crash came between the two renames of `save_best`.
        self._manager = ocp.CheckpointManager(
            self._steps_folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                cleanup_tmp_directories=True,
                # Called when all is written and the folder has not its final name yet: no checkpoint is without a seal.
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal_unpublished),
            ),
        )

    @property
    def latest(self) -> epath.Path | None:
        """The newest complete checkpoint."""
        steps = self._manager.all_steps()
        return self._steps_folder / str(max(steps)) if steps else None

    def save(self, step: int, state: Any, host: Mapping[str, Any]) -> None:
        """Write a checkpoint in the background; waits for the one before it.

        Args:
            step: Optimizer steps done.
            state: Pytree of arrays, copied before this returns.
            host: JSON-able values.

        Raises:
            MachineError: The disk is full, say; earlier checkpoints are untouched.
        """
        self.wait()
        self._saving = step
        with self._explained():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    host=ocp.args.JsonSave({"fingerprint": self._fingerprint, "values": dict(host)}),
                ),
                force=True,
            )

    def wait(self) -> None:
        """Return when the last `save` is complete on disk.

        Raises:
            MachineError: The disk is full, say; earlier checkpoints are untouched.
        """
        with self._explained():
            self._manager.wait_until_finished()

    def _seal_unpublished(self) -> None:
        name = str(self._saving)
        if jax.process_index() == 0:
            for folder in self._steps_folder.iterdir():
                if folder.name == name or folder.name.startswith(f"{name}.orbax-checkpoint-tmp"):
                    _seal(folder, without=folder / _TIMES)

    def restore(self, abstract_state: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """Return (step, state, host values) of the newest checkpoint that is whole; `None` where there is none.

        One whose bytes were read and are wrong is set aside as `damaged-<step>`, with a warning, and the one before it
        is taken. Nothing is set aside for any other reason.

        Args:
            abstract_state: Pytree of `jax.ShapeDtypeStruct` with the shardings that the state shall have.

        Raises:
            MachineError: The machine does not let a checkpoint be read.
            UserError: All checkpoints are damaged, they are of another configuration, or one cannot be read although
                its bytes are those that were written.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return self._restore_step(step, abstract_state)
            except DamagedError as error:
                self._set_aside(step, error)
        if steps:
            raise UserError(
                f"none of the {len(steps)} checkpoints in {self._steps_folder} is whole: move {self._folder} away to "
                "train from the start"
            )
        return None

    def _set_aside(self, step: int, why: Exception) -> None:
        folder = self._steps_folder / str(step)
        logger.warning("checkpoint %s is damaged (%s); trying the one before it", folder, why)
        folder.rename(free(self._steps_folder / f"damaged-{step}"))
        self._manager.reload()

    def _restore_step(self, step: int, abstract_state: Any) -> tuple[int, Any, dict[str, Any]]:
        folder = self._steps_folder / str(step)
        # Checkpoints of earlier versions may have no seal.
        sealed = is_there(folder / _SEAL)
        if sealed:
            check_seal(folder)
            _check_times(folder / _TIMES)
        with _reading(folder, sealed):
            host = self._manager.restore(step, args=ocp.args.Composite(host=ocp.args.JsonRestore()))["host"]
        if host["fingerprint"] != self._fingerprint:
            raise UserError(
                f"the checkpoints in {self._steps_folder} were written with another configuration: "
                f"choose another workdir or move {self._folder} away"
            )
        with _reading(folder, sealed):
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state)),
            )
        return step, restored["state"], host["values"]

    def save_best(self, params: Any, metadata: Mapping[str, Any]) -> None:
        """Replace `best/` by these parameters; readers see the old ones or the new ones.

        Args:
            params: Nested dict of arrays.
            metadata: JSON-able; see `load_params`.

        Raises:
            MachineError: The disk is full, say; the old `best/` is untouched.
        """
        best, partial, old = (self._folder / name for name in ("best", "best.partial", "best.old"))
        with self._explained():
            if jax.process_index() == 0:
                for leftover in (partial, old):
                    if is_there(leftover):
                        leftover.rmtree()
                save_params(partial, params, metadata)
                if is_there(best):
                    best.rename(old)
                partial.rename(best)
                if is_there(old):
                    old.rmtree()

    def close(self) -> None:
        """Wait for the last `save` and let the folder go."""
        try:
            self.wait()
        finally:
            self._manager.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax wraps the errors of its writers.
            found = faults.explain(error)
            if found is None:
                raise
            raise type(found)(
                f"could not write a checkpoint to {self._folder}: {found}; training goes on from "
                f"{self.latest or 'the start'}"
            ) from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def save_params(folder: epath.PathLike, params: Any, metadata: Mapping[str, Any]) -> None:
    """Write parameters where `load_params` can read them.

    Args:
        folder: A new folder.
        params: Nested dict of arrays.
        metadata: JSON-able values, see `load_params`.
    """
    folder = resolve_workdir(folder, "the model's folder")
    params = jax.device_get(params)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "params", params)
        checkpointer.wait_until_finished()
    write_bytes(folder / _METADATA, json.dumps({**metadata, "shapes": _shapes(params)}, indent=2).encode())
    _seal(folder)


def load_params(
    folder: epath.PathLike, tokenizer: Fingerprinted | None = None, *, expect: Any = None
) -> tuple[Any, dict[str, Any]]:
    """Return (params, metadata) of a `best/` folder.

    Args:
        folder: What `save_params` or the training loop wrote, such as `WORKDIR/policy/best`.
        tokenizer: When given, it must be the one the model was trained with.
        expect: When given, a pytree with the shapes the parameters must have, as
            `ttcjax.model.params.abstract(config)` returns it.

    Returns:
        Nested dict of numpy arrays, which any number of devices may take; and metadata with `kind` (`policy` or
        `prm`), `model` (a `ModelConfig` as a dict), `tokenizer` (fingerprint), `step`, `valid_loss` and
        `chosen_by` (the metric that picked them).

    Raises:
        DamagedError: A file of it is gone, or its bytes were read and are not those that were written.
        MachineError: The machine does not let it be read.
        UserError: The folder is missing or was never finished, or it does not match `tokenizer` or `expect`.
    """
    folder = resolve_workdir(folder, "the model's folder")
    if not is_there(folder):
        raise UserError(f"there is no model at {folder}: run the stage that trains it first")
    if not is_there(folder / _SEAL):
        raise UserError(
            f"{folder} holds no model of ttcjax, or one that was never finished: its list of files, {_SEAL}, is not "
            "there; run the stage that trains it"
        )
    check_seal(folder)
    metadata, shapes = read_metadata(folder)
    if tokenizer is not None and metadata.get("tokenizer") != tokenizer.fingerprint:
        raise UserError(
            f"the model at {folder} was trained with tokenizer {metadata.get('tokenizer')}, not with "
            f"{tokenizer.fingerprint}: use the tokenizer of its own workdir or train it again"
        )
    if expect is not None and _shapes(expect) != shapes:
        wrong = sorted(dict(set(shapes.items()) ^ set(_shapes(expect).items())))[0]
        raise UserError(
            f"the model at {folder} does not fit the model config: parameter {wrong} has shape "
            f"{shapes.get(wrong, 'none')}, not {_shapes(expect).get(wrong, 'none')}; use the config it was trained with"
        )
    with _reading(folder), ocp.StandardCheckpointer() as checkpointer:
        params = checkpointer.restore(folder / "params")
    return params, metadata


def content(folder: epath.Path) -> str | None:
    """Return a hash of a model, from the list of its files; `None` where there is no model.

    Raises:
        DamagedError: The list is.
    """
    try:
        listed = json.loads((folder / _SEAL).read_text())
        found = json.dumps(sorted(listed.items()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, AttributeError) as error:
        raise records.damaged(folder / _SEAL, "it is no table of JSON") from error
    return hashlib.sha256(found.encode()).hexdigest()[:16]


def read_metadata(folder: epath.Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """Return the metadata of a `best/` folder, see `load_params`, and the shape of each parameter; none is read.

    Raises:
        DamagedError: The file is gone, or is no metadata.
        MachineError: The machine does not let it be read.
    """
    try:
        metadata = json.loads((folder / _METADATA).read_text())
        shapes = {path: tuple(shape) for path, shape in metadata.pop("shapes").items()}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        faults.raise_explained(error)
        raise records.damaged(folder / _METADATA, _first_line(error)) from error
    return metadata, shapes


@contextmanager
def _reading(folder: epath.Path, sealed: bool = True) -> Iterator[None]:
    """Tell apart why Orbax cannot read what it wrote: it raises whatever came of it, an `AssertionError` too.

    Args:
        folder: What is read.
        sealed: Its bytes were compared with those that were written, and are the same.
    """
    all_devices()
    try:
        yield
    except Exception as error:
        faults.raise_explained(error)
        if not sealed:
            raise UserError(
                f"{folder} cannot be read ({_first_line(error)}), and no list of its files says whether it is whole: "
                "move it away to go on from the checkpoint before it"
            ) from error
        raise UserError(
            f"{folder} cannot be read, although its bytes are whole ({_first_line(error)}): are jax, optax and "
            "orbax-checkpoint of the versions that wrote it?"
        ) from error


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(np.shape(leaf)) for path, leaf in leaves}


def _seal(folder: epath.Path, without: epath.Path | None = None) -> None:
    """Write size and crc32 of every file below `folder` beside them; the list comes last and marks them complete."""
    files = {}
    pending = [folder]
    while pending:
        for path in pending.pop().iterdir():
            if path.is_dir():
                pending.append(path)
            elif path not in (folder / _SEAL, without):
                files[os.fspath(path.relative_to(folder))] = _size_and_sum(path)
    write_bytes(folder / _SEAL, json.dumps(files).encode())


def _size_and_sum(path: epath.Path) -> list[int]:
    content = path.read_bytes()
    return [len(content), zlib.crc32(content)]


def check_seal(folder: epath.Path) -> None:
    """Compare the files of a model or checkpoint with the list that was written beside them; others are not looked at.

    Raises:
        DamagedError: A file is gone, or has other bytes.
        MachineError: A file cannot be read.
    """
    try:
        expected = json.loads((folder / _SEAL).read_text())
        for name, what in expected.items():
            found = _size_and_sum(folder / name)
            if found[0] != what[0]:
                raise records.damaged(folder / name, f"it has {found[0]} bytes of {what[0]}")
            if found != what:
                raise records.damaged(folder / name, "it has other bytes than were written")
    except UserError:
        raise
    except FileNotFoundError as error:
        raise records.damaged(error.filename or folder, "it is gone") from error
    except (ValueError, AttributeError) as error:
        raise records.damaged(folder / _SEAL, "it is no table of JSON") from error
    except OSError as error:
        faults.raise_explained(error)
        raise


def _check_times(path: epath.Path) -> None:
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise records.damaged(path, "it is gone") from error
    except ValueError as error:
        raise records.damaged(path, "it is no JSON") from error
    except OSError as error:
        faults.raise_explained(error)
        raise


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
