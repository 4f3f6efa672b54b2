"""Training state and trained parameters on disk: written atomically, checked when read.

A training folder holds

    checkpoints/<step>/   state and host values of one step, the latest few (Orbax)
    best/                 params and metadata.json of the lowest validation loss

A checkpoint folder gets its final name only when it is complete. Orbax notices truncated data but not changed
bits, and reports either in many lines, so a list of sizes and checksums is kept beside the data and checked first.
"""

from __future__ import annotations

import errno
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

from ttcjax.errors import UserError
from ttcjax.files import absolute

logger = logging.getLogger(__name__)

_SEAL = "files.json"
_METADATA = "metadata.json"


@runtime_checkable
class Fingerprinted(Protocol):
    """What is asked of a tokenizer here."""

    @property
    def fingerprint(self) -> str: ...


class DamagedError(Exception):
    """A file of a checkpoint is missing, cut short or changed."""


class Checkpoints:
    """The checkpoints of one training run.

    Args:
        folder: The training folder.
        keep: Latest checkpoints that are kept.
        fingerprint: Identifies the configuration; a checkpoint with another one is refused.
    """

    def __init__(self, folder: epath.PathLike, *, keep: int, fingerprint: str):
        self._folder = absolute(folder)
        self._steps_folder = self._folder / "checkpoints"
        self._fingerprint = fingerprint
        self._unsealed: int | None = None
        self._steps_folder.mkdir(parents=True, exist_ok=True)
        old_best = self._folder / "best.old"
        if old_best.exists() and not (self._folder / "best").exists():
            old_best.rename(self._folder / "best")  # A crash came between the two renames of `save_best`.
        self._manager = ocp.CheckpointManager(
            self._steps_folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
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
            UserError: The disk is full; earlier checkpoints are untouched.
        """
        self.wait()
        with self._explain_full_disk():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    host=ocp.args.JsonSave({"fingerprint": self._fingerprint, "values": dict(host)}),
                ),
                force=True,
            )
        self._unsealed = step

    def wait(self) -> None:
        """Return when the last `save` is complete on disk.

        Raises:
            UserError: The disk is full; earlier checkpoints are untouched.
        """
        with self._explain_full_disk():
            self._manager.wait_until_finished()
            if self._unsealed is not None and jax.process_index() == 0:
                _seal(self._steps_folder / str(self._unsealed))
        self._unsealed = None

    def restore(self, abstract_state: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """Return (step, state, host values) of the newest checkpoint that can be read; `None` where there is none.

        A damaged one is set aside as `damaged-<step>`, with a warning, and the one before it is taken.

        Args:
            abstract_state: Pytree of `jax.ShapeDtypeStruct` with the shardings that the state shall have.

        Raises:
            UserError: All checkpoints are damaged, or they are of another configuration.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            folder = self._steps_folder / str(step)
            try:
                return self._restore_step(step, abstract_state)
            except UserError:
                raise
            except Exception as error:  # Orbax raises whatever the damage led to.
                logger.warning("checkpoint %s is damaged (%s); trying the one before it", folder, _first_line(error))
                aside = self._steps_folder / f"damaged-{step}"
                if aside.exists():
                    aside.rmtree()
                folder.rename(aside)
                self._manager.reload()
        if steps:
            raise UserError(
                f"all {len(steps)} checkpoints in {self._steps_folder} are damaged: "
                f"delete {self._folder} to train from the start"
            )
        return None

    def _restore_step(self, step: int, abstract_state: Any) -> tuple[int, Any, dict[str, Any]]:
        folder = self._steps_folder / str(step)
        if (folder / _SEAL).exists():  # Missing where the process was killed right after the checkpoint.
            _check_seal(folder)
        host = self._manager.restore(step, args=ocp.args.Composite(host=ocp.args.JsonRestore()))["host"]
        if host["fingerprint"] != self._fingerprint:
            raise UserError(
                f"the checkpoints in {self._steps_folder} were written with another configuration: "
                f"choose another workdir or delete {self._folder}"
            )
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
            UserError: The disk is full; the old `best/` is untouched.
        """
        best, partial, old = (self._folder / name for name in ("best", "best.partial", "best.old"))
        with self._explain_full_disk():
            if jax.process_index() == 0:
                for leftover in (partial, old):
                    if leftover.exists():
                        leftover.rmtree()
                save_params(partial, params, metadata)
                if best.exists():
                    best.rename(old)
                partial.rename(best)
                if old.exists():
                    old.rmtree()

    def close(self) -> None:
        """Wait for the last `save` and let the folder go."""
        try:
            self.wait()
        finally:
            self._manager.close()

    @contextmanager
    def _explain_full_disk(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Orbax wraps the errors of its writers; tensorstore's carry the number in their text only.
            if not (getattr(error, "errno", None) == errno.ENOSPC or f"'{errno.ENOSPC}'" in str(error)):
                raise
            self._unsealed = None
            latest = self.latest
            raise UserError(
                f"the disk is full: could not write a checkpoint to {self._folder}; free some space and run the same "
                f"command again, it goes on from {latest or 'the start'}"
            ) from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def save_params(folder: epath.PathLike, params: Any, metadata: Mapping[str, Any]) -> None:
    """Write parameters where `load_params` can read them; `metadata.json` comes last and marks them complete.

    Args:
        folder: A new folder.
        params: Nested dict of arrays.
        metadata: JSON-able values, see `load_params`.
    """
    folder = absolute(folder)
    params = jax.device_get(params)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "params", params)
        checkpointer.wait_until_finished()
    _seal(folder)
    (folder / _METADATA).write_text(json.dumps({**metadata, "shapes": _shapes(params)}, indent=2))


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
        `prm`), `model` (a `ModelConfig` as a dict), `tokenizer` (fingerprint), `step` and `valid_loss`.

    Raises:
        UserError: The folder is missing, incomplete or damaged, or it does not match `tokenizer` or `expect`.
    """
    folder = absolute(folder)
    if not folder.exists():
        raise UserError(f"there is no model at {folder}: run the stage that trains it first")
    again = "delete it and run the stage that writes it again"
    try:
        metadata = json.loads((folder / _METADATA).read_text())
        shapes = {path: tuple(shape) for path, shape in metadata.pop("shapes").items()}
        _check_seal(folder)
    except (OSError, ValueError, KeyError, AttributeError, DamagedError) as error:
        raise UserError(f"the model at {folder} is damaged or incomplete ({_first_line(error)}): {again}") from error
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
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore(folder / "params")
    except Exception as error:  # Orbax raises whatever the damage led to.
        raise UserError(f"the model at {folder} cannot be read ({_first_line(error)}): {again}") from error
    return params, metadata


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(np.shape(leaf)) for path, leaf in leaves}


def _file_list(folder: epath.Path) -> dict[str, list[int]]:
    """Return (size in bytes, crc32) of every file below `folder`."""
    files = {}
    pending = [folder]
    while pending:
        for path in pending.pop().iterdir():
            if path.is_dir():
                pending.append(path)
            elif path.name not in (_SEAL, _METADATA) or path.parent != folder:
                data = path.read_bytes()
                files[os.fspath(path.relative_to(folder))] = [len(data), zlib.crc32(data)]
    return files


def _seal(folder: epath.Path) -> None:
    partial = folder / f"{_SEAL}.partial"
    content = json.dumps(_file_list(folder))
    partial.write_text(content)
    partial.replace(folder / _SEAL)


def _check_seal(folder: epath.Path) -> None:
    """Raise `DamagedError` unless every file is as it was when the folder was sealed."""
    try:
        expected = json.loads((folder / _SEAL).read_text())
    except ValueError as error:
        raise DamagedError(f"{_SEAL} cannot be read") from error
    found = _file_list(folder)
    for name, what in expected.items():
        if name not in found:
            raise DamagedError(f"{name} is missing")
        if found[name] != what:
            raise DamagedError(f"{name} has {found[name][0]} bytes of {what[0]}, or they have changed")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
