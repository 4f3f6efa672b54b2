"""Who may work in a workdir at once: the parts of one sweep, each once, and nobody beside them."""

import fcntl
import subprocess
import sys

import pytest
from etils import epath

from ttcjax import pipeline, sweeping
from ttcjax.errors import UserError
from ttcjax.eval.shards import Part

HOLD = """
import sys, time
from etils import epath
from ttcjax import sweeping
from ttcjax.eval.shards import Part
with sweeping._shared(epath.Path(sys.argv[1]), Part(1, 2), "settings"), sweeping._alone(epath.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
print("free", flush=True)
sys.stdin.readline()
"""


def test_parts_share_a_workdir_and_nobody_else_does(tmp_path):
    workdir = epath.Path(tmp_path)

    def enter(part: Part, mark: str) -> None:
        with sweeping._shared(workdir, part, mark):
            pass

    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        enter(Part(2, 2), "settings")
        with pytest.raises(UserError, match=f"part 1/2 of a sweep in .* runs already, as process {holder.pid} on "):
            enter(Part(1, 2), "settings")
        for part, mark in ((Part(2, 2), "others"), (Part(2, 3), "settings")):
            with pytest.raises(UserError, match="in use by a sweep in 2 parts with settings settings, and this is a"):
                enter(part, mark)
        with pytest.raises(UserError, match="in use by a sweep in 2 parts with settings"), pipeline.locked(workdir):
            pass
        with pytest.raises(BlockingIOError), open(tmp_path / sweeping._GATE, "r+") as gate:
            fcntl.lockf(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "free\n"
        with pipeline.locked(workdir):
            pass
    finally:
        holder.kill()
        holder.communicate()
    enter(Part(1, 2), "others")
    assert (tmp_path / ".lock").read_text() == "a sweep in 2 parts with settings others\n", "an old mark is replaced"


def test_a_part_is_refused_while_a_run_holds_the_workdir(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeping, "_PATIENCE", 0.1)
    code = HOLD.replace(
        'sweeping._shared(epath.Path(sys.argv[1]), Part(1, 2), "settings")',
        "sweeping.pipeline.locked(epath.Path(sys.argv[1]))",
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=f"in use by process {holder.pid} on .*: wait for it to end"),
            sweeping._shared(epath.Path(tmp_path), Part(1, 2), "settings"),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()
