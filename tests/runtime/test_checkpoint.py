"""Checkpoints come back as they were, or the reader hears in one line why not."""

import dataclasses
import errno
import json
import logging
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ttcjax.runtime.checkpoint import Checkpoints, check_seal, load_params, save_params
from ttcjax.runtime.errors import DamagedError, MachineError, UserError


@dataclasses.dataclass
class _Tokenizer:
    fingerprint: str


PARAMS = {"embed": np.arange(12, dtype=np.float32).reshape(4, 3), "layers": {"w": np.ones((2, 3, 3), np.float32)}}
METADATA = {"kind": "policy", "model": {}, "tokenizer": "abc", "step": 7, "valid_loss": 0.5}


def restored(checkpoints, abstract):
    found = checkpoints.restore(abstract)
    assert found is not None, "there is a checkpoint and none was restored"
    return found


def _state(value):
    return {"params": jax.tree.map(lambda x: jnp.asarray(x) * value, PARAMS), "step": jnp.asarray(value, jnp.int32)}


def _abstract():
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _state(1))


def _open(folder, keep=2, fingerprint="f"):
    return Checkpoints(folder, keep=keep, fingerprint=fingerprint)


def _largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def _flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def _equal(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def test_state_and_host_values_come_back_exactly(tmp_path):
    with _open(tmp_path) as checkpoints:
        checkpoints.save(3, _state(3), {"loss": 0.1, "data": {"next_index": 5}})
    with _open(tmp_path) as checkpoints:
        step, state, host = restored(checkpoints, _abstract())
    assert step == 3
    assert _equal(state, _state(3))
    assert host == {"loss": 0.1, "data": {"next_index": 5}}


def test_an_empty_folder_restores_nothing(tmp_path):
    with _open(tmp_path) as checkpoints:
        assert checkpoints.restore(_abstract()) is None
        assert checkpoints.latest is None


def test_only_the_latest_are_kept(tmp_path):
    with _open(tmp_path) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(step, _state(step), {})
        checkpoints.wait()
        assert checkpoints.latest == tmp_path / "checkpoints" / "4"
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["3", "4"]


@pytest.mark.parametrize("damage", [_truncate, _flip_a_bit, os.remove])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, damage):
    with _open(tmp_path) as checkpoints:
        checkpoints.save(1, _state(1), {})
        checkpoints.save(2, _state(2), {})
    damage(_largest_file(tmp_path / "checkpoints" / "2" / "state"))
    with caplog.at_level(logging.WARNING, "ttcjax.runtime.checkpoint"), _open(tmp_path) as checkpoints:
        step, state, _ = restored(checkpoints, _abstract())
        assert step == 1
        assert _equal(state, _state(1))
        assert "checkpoints/2 is damaged" in caplog.text
        checkpoints.save(2, _state(2), {})  # The step must be free again.
    with _open(tmp_path) as checkpoints:
        assert restored(checkpoints, _abstract())[0] == 2


def test_a_checkpoint_without_a_seal_is_not_judged(tmp_path):
    """Earlier versions left such ones; nothing says which bytes they should have."""
    with _open(tmp_path) as checkpoints:
        checkpoints.save(1, _state(1), {})
        checkpoints.save(2, _state(2), {})
    (tmp_path / "checkpoints" / "2" / "files.json").unlink()
    with _open(tmp_path) as checkpoints:
        assert restored(checkpoints, _abstract())[0] == 2, "it may well be whole"
    _truncate(tmp_path / "checkpoints" / "2" / "state" / "manifest.ocdbt")
    with _open(tmp_path) as checkpoints, pytest.raises(UserError, match=r"checkpoints/2 cannot be read .*move it away"):
        checkpoints.restore(_abstract())
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]


def test_a_process_killed_right_after_a_checkpoint_leaves_a_sealed_one(tmp_path):
    """The newest checkpoint is what a killed run goes on from: its bytes must be known from the moment it is there."""
    code = f"""
import os, time
import jax.numpy as jnp
from ttcjax.runtime.checkpoint import Checkpoints
checkpoints = Checkpoints({str(tmp_path)!r}, keep=2, fingerprint="x")
checkpoints.save(1, {{"w": jnp.ones(1000)}}, {{}})
while not os.path.exists({str(tmp_path / "checkpoints" / "1")!r}):
    time.sleep(0.001)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    check_seal(epath.Path(tmp_path) / "checkpoints" / "1")


def test_an_unsealed_checkpoint_that_another_optimizer_wrote_is_kept(tmp_path):
    """As after an upgrade of optax: the trees differ, and nothing is damaged."""
    with _open(tmp_path) as checkpoints:
        checkpoints.save(1, _state(1), {})
    (tmp_path / "checkpoints" / "1" / "files.json").unlink()
    wanted = {**_abstract(), "more": _abstract()["step"]}
    with _open(tmp_path) as checkpoints, pytest.raises(UserError, match="cannot be read"):
        checkpoints.restore(wanted)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1"]


def test_what_was_set_aside_before_is_kept(tmp_path):
    for _ in range(2):
        with _open(tmp_path) as checkpoints:
            checkpoints.save(1, _state(1), {})
        _truncate(_largest_file(tmp_path / "checkpoints" / "1" / "state"))
        with _open(tmp_path) as checkpoints, pytest.raises(UserError, match="none of the 1 checkpoints"):
            checkpoints.restore(_abstract())
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["damaged-1", "damaged-1-2"]


def test_a_half_written_checkpoint_is_ignored(tmp_path):
    with _open(tmp_path) as checkpoints:
        checkpoints.save(1, _state(1), {})
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "1", folder / "2.orbax-checkpoint-tmp")
    with _open(tmp_path) as checkpoints:
        assert restored(checkpoints, _abstract())[0] == 1


def test_all_damaged_is_one_line_with_the_fix(tmp_path):
    with _open(tmp_path) as checkpoints:
        checkpoints.save(1, _state(1), {})
    _truncate(_largest_file(tmp_path / "checkpoints" / "1" / "state"))
    with (
        _open(tmp_path) as checkpoints,
        pytest.raises(UserError, match=r"none of the 1 checkpoints .* whole: move"),
    ):
        checkpoints.restore(_abstract())


def test_another_configuration_is_refused_and_nothing_is_set_aside(tmp_path):
    with _open(tmp_path) as checkpoints:
        checkpoints.save(1, _state(1), {})
    with _open(tmp_path, fingerprint="g") as checkpoints, pytest.raises(UserError, match="another configuration"):
        checkpoints.restore(_abstract())
    assert (tmp_path / "checkpoints" / "1").exists()


def test_best_is_replaced_whole(tmp_path):
    with _open(tmp_path) as checkpoints:
        checkpoints.save_best(PARAMS, METADATA)
        checkpoints.save_best(jax.tree.map(lambda x: x + 1, PARAMS), {**METADATA, "step": 8})
    params, metadata = load_params(tmp_path / "best")
    assert metadata["step"] == 8
    assert _equal(params, jax.tree.map(lambda x: x + 1, PARAMS))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "checkpoints"]


def test_a_crash_between_the_renames_of_best_is_mended(tmp_path):
    with _open(tmp_path) as checkpoints:
        checkpoints.save_best(PARAMS, METADATA)
    (tmp_path / "best").rename(tmp_path / "best.old")
    _open(tmp_path).close()
    assert load_params(tmp_path / "best")[1]["step"] == 7


def test_params_are_numpy_with_metadata(tmp_path):
    save_params(tmp_path / "best", jax.tree.map(jnp.asarray, PARAMS), METADATA)
    params, metadata = load_params(str(tmp_path / "best"), _Tokenizer("abc"), expect=PARAMS)
    assert metadata == METADATA
    assert _equal(params, PARAMS)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))


def test_missing_model_names_the_folder_and_the_fix(tmp_path):
    with pytest.raises(UserError, match=r"no model at .*policy: run the stage"):
        load_params(tmp_path / "policy")


def test_wrong_tokenizer_names_both(tmp_path):
    save_params(tmp_path / "best", PARAMS, METADATA)
    with pytest.raises(UserError, match=r"tokenizer abc, not with xyz"):
        load_params(tmp_path / "best", _Tokenizer("xyz"))


def test_wrong_shape_names_the_parameter(tmp_path):
    save_params(tmp_path / "best", PARAMS, METADATA)
    expect = {**PARAMS, "embed": np.zeros((5, 3))}
    with pytest.raises(UserError, match=r"parameter embed has shape \(4, 3\), not \(5, 3\)"):
        load_params(tmp_path / "best", expect=expect)


def test_a_parameter_too_many_is_named(tmp_path):
    save_params(tmp_path / "best", PARAMS, METADATA)
    with pytest.raises(UserError, match=r"parameter embed has shape \(4, 3\), not none"):
        load_params(tmp_path / "best", expect={"layers": PARAMS["layers"]})


@pytest.mark.parametrize("damage", [_truncate, _flip_a_bit, os.remove])
def test_damage_to_any_file_is_one_line(tmp_path, damage):
    save_params(tmp_path / "best", PARAMS, METADATA)
    files = [p.relative_to(tmp_path / "best") for p in (tmp_path / "best").rglob("*") if p.is_file()]
    for name in files:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(tmp_path / "best", tmp_path / "copy")
        if (tmp_path / "copy" / name).stat().st_size:
            damage(tmp_path / "copy" / name)
            with pytest.raises(UserError) as error:
                load_params(tmp_path / "copy")
            assert "\n" not in str(error.value), name
            gone = name.name == "files.json" and damage is os.remove  # Then nothing says what was written.
            assert ("never finished" if gone else "is damaged") in str(error.value), name


def test_full_disk_is_one_line_and_keeps_what_was_written(tmp_path, monkeypatch):
    with _open(tmp_path) as checkpoints:
        checkpoints.save(1, _state(1), {})
        checkpoints.save_best(PARAMS, METADATA)
        checkpoints.wait()

        def full(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("orbax.checkpoint.StandardCheckpointer.save", full)
        monkeypatch.setattr(checkpoints._manager, "save", full)
        with pytest.raises(MachineError, match=r"no space left on the disk.*goes on from .*checkpoints/1"):
            checkpoints.save_best(PARAMS, {**METADATA, "step": 8})
        with pytest.raises(MachineError, match="no space left on the disk"):
            checkpoints.save(2, _state(2), {})
        monkeypatch.undo()
    assert load_params(tmp_path / "best")[1]["step"] == 7
    with _open(tmp_path) as checkpoints:
        assert restored(checkpoints, _abstract())[0] == 1


def test_writers_report_a_really_full_disk(tmp_path):
    """Tensorstore words the error its own way; needs the right to mount a small file system."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=2m tmpfs {folder} 2>/dev/null"):
        pytest.skip("cannot mount a file system here")
    try:
        big = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(250, 1000)), jnp.float32)}
        checkpoints = _open(folder)

        def fill():
            for step in range(1, 6):
                checkpoints.save(step, big, {})

        with pytest.raises(MachineError, match="no space left on the disk") as error:
            fill()
        assert "\n" not in str(error.value)
        checkpoints.close()
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), big)
        with _open(folder) as checkpoints:
            step, state, _ = restored(checkpoints, abstract)
            assert step >= 1
            assert _equal(state, big)
    finally:
        os.system(f"umount {folder}")


def test_metadata_is_readable_by_other_tools(tmp_path):
    save_params(tmp_path / "best", PARAMS, METADATA)
    on_disk = json.loads((tmp_path / "best" / "metadata.json").read_text())
    assert on_disk["kind"] == "policy"
    assert on_disk["shapes"]["layers/w"] == [2, 3, 3]


def test_relative_folders_work(tmp_path, monkeypatch):
    """Orbax refuses relative paths; a workdir such as `runs/demo` is one."""
    monkeypatch.chdir(tmp_path)
    save_params("runs/x", {"w": np.ones((2,), np.float32)}, {"kind": "policy"})
    params, metadata = load_params("runs/x")
    assert params["w"].tolist() == [1.0, 1.0]
    assert metadata["kind"] == "policy"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "x"), "permission denied"),
        (MemoryError(), "out of memory"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files"),
        (ModuleNotFoundError("No module named 'zstandard'", name="zstandard"), "needs the library zstandard"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), "out of memory"),
        (RuntimeError("Unable to initialize backend 'cuda'"), "no platform 'cuda' here"),
        (ValueError("something that nobody foresaw"), "although its bytes are whole"),
        (AssertionError(), "although its bytes are whole"),
    ],
)
def test_nothing_but_damage_sets_a_checkpoint_aside(tmp_path, monkeypatch, error, words):
    """Any exception at all used to rename the newest checkpoint to `damaged-N`, and then the one before it."""
    with _open(tmp_path) as checkpoints:
        checkpoints.save(1, _state(1), {})
        checkpoints.save(2, _state(2), {})
        checkpoints.save_best(PARAMS, METADATA)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", fail)
    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointer.restore", fail)
    with _open(tmp_path) as checkpoints, pytest.raises(UserError, match=words) as caught:
        checkpoints.restore(_abstract())
    assert not isinstance(caught.value, DamagedError)
    with pytest.raises(UserError, match=words) as caught:
        load_params(tmp_path / "best")
    assert not isinstance(caught.value, DamagedError)
    monkeypatch.undo()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]
    with _open(tmp_path) as checkpoints:
        assert restored(checkpoints, _abstract())[0] == 2
