"""Faults told apart: what the machine refuses, what is missing, and what is damaged."""

import errno
import os
import shutil
import socket
import subprocess
import sys

import google.protobuf.message
import pyarrow as pa
import pytest
from etils import epath

from ttcjax.runtime import faults, parquet, records
from ttcjax.runtime.checkpoint import load_params
from ttcjax.runtime.errors import DamagedError, MachineError, UserError
from ttcjax.testing import folders

MACHINE = [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"), "no space left on the disk at a/b: free some space"),
    (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "quota is used up: free some space"),
    (
        PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a/b"),
        "permission denied at a/b: run as a user",
    ),
    (OSError(errno.EROFS, os.strerror(errno.EROFS), "a/b"), "is read-only at a/b: choose a folder that can be written"),
    (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "out of memory: use a machine with more"),
    (MemoryError(), "out of memory"),
    (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "too many open files: raise the limit (ulimit -n)"),
    (OSError(errno.EIO, os.strerror(errno.EIO), "a/b"), "failed to answer at a/b: see to the drive"),
    (OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH)), "no network: see that the machine is connected"),
    (socket.gaierror(-2, "Name or service not known"), "no network (\\[Errno -2\\] Name or service not known)"),
    (ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)), "the connection was refused"),
    (ValueError("RESOURCE_EXHAUSTED: write failed: No space left on device"), "no space left on the disk"),
    (ValueError("PERMISSION_DENIED: Error opening \"x\" [source locations='..']"), "permission denied"),
    (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes."), "out of memory"),
    (RuntimeError("std::bad_alloc"), "out of memory"),
]


@pytest.mark.parametrize(("error", "words"), MACHINE, ids=[repr(error)[:40] for error, _ in MACHINE])
def test_what_the_machine_refuses_is_said_with_its_cure(error, words):
    found = faults.explain(error)
    assert isinstance(found, MachineError)
    assert words.replace("\\", "") in str(found)
    assert found.status == 1
    wrapped = RuntimeError("checkpoint failed")
    wrapped.__cause__ = ExceptionGroup("writers", [error])
    with pytest.raises(MachineError), faults.explained():
        raise wrapped
    assert str(faults.explain(wrapped)) == str(found), "libraries wrap it"
    assert str(faults.explain(raised_by("orbax.checkpoint.handlers", error))) == str(found), "and do not always say so"
    assert faults.explain(raised_by("ttcjax.pipeline.plan", error)) is None, "a bug in what follows a fault is a bug"


def raised_by(module, error):
    """Return another error that code of a module raises while it handles `error`."""
    code = (
        "def handle(error):\n    try:\n        raise error\n    except BaseException:\n        raise KeyError('what')\n"
    )
    scope = {"__name__": module}
    exec(code, scope)
    with pytest.raises(KeyError) as caught:
        scope["handle"](error)
    return caught.value


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'gcsfs'", name="gcsfs"), "library gcsfs.*pip install 'ttcjax\\[data\\]'"),
        (ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"), "library torch.*'ttcjax\\[bench\\]'"),
        (ModuleNotFoundError("No module named 'math_verify'", name="math_verify"), "pip install math-verify"),
        (ImportError("Please install gcsfs to access Google Storage"), "a gs:// path needs the library gcsfs"),
        (
            RuntimeError("Unable to initialize backend 'cuda': no device"),
            "no platform 'cuda' here.*unset JAX_PLATFORMS",
        ),
        (
            RuntimeError("Unable to initialize backend 'tpu': NOT_FOUND: ..."),
            "no platform 'tpu' here.*'ttcjax\\[tpu\\]'",
        ),
        (RuntimeError("Backend 'foo' is not in the list of known backends"), "no platform 'foo' here"),
    ],
)
def test_what_is_missing_is_named_with_what_installs_it(error, words):
    found = faults.explain(error)
    assert found is not None
    with pytest.raises(UserError, match=words):
        raise found
    assert found.status == 2
    assert not isinstance(found, DamagedError)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("DATA_LOSS: bad crc"),
        KeyError("layers"),
        AssertionError(),
        ZeroDivisionError(),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a/b"),
        ModuleNotFoundError("No module named 'ttcjax.nowhere'", name="ttcjax.nowhere"),
    ],
)
def test_what_is_neither_is_left_to_those_who_know_more(error):
    assert faults.explain(error) is None


def test_an_error_for_the_user_is_returned_as_it_is():
    error = RuntimeError("wrapped")
    error.__cause__ = records.damaged("a/b", "it has 3 bytes of 4")
    found = faults.explain(error)
    assert found is error.__cause__
    assert "a/b is damaged (it has 3 bytes of 4): run `ttcjax run CONFIG`" in str(found)
    bug = ZeroDivisionError()
    bug.__context__ = error.__cause__
    assert faults.explain(bug) is None, "a fault of the program is not hidden behind what was being handled"


def test_an_absent_platform_is_not_damage(tmp_path):
    """`delete the model and train it again` used to be the advice on a machine without a GPU."""
    from ttcjax.runtime.checkpoint import save_params

    save_params(tmp_path / "best", {"w": __import__("numpy").ones(3, "float32")}, {"kind": "policy"})
    code = (
        "import sys\nfrom ttcjax.runtime.checkpoint import Checkpoints, load_params\n"
        "from ttcjax.runtime.errors import UserError\n"
        "for call in (lambda: load_params(sys.argv[1] + '/best'),):\n"
        "    try:\n        call()\n    except UserError as error:\n        print(error)\n"
    )
    before = sorted((path, path.stat().st_mtime) for path in tmp_path.rglob("*"))
    for platform in ("cuda", "tpu", "nonsense"):
        env = os.environ | {"JAX_PLATFORMS": platform}
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True)
        assert f"JAX finds no platform {platform!r} here" in done.stdout, done.stderr[-500:]
        assert "damaged" not in done.stdout
    assert sorted((path, path.stat().st_mtime) for path in tmp_path.rglob("*")) == before


def test_a_damaged_message_of_protobuf_is_no_fault_of_a_bucket():
    assert faults.explain(google.protobuf.message.DecodeError("Error parsing message")) is None


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ELOOP, "link leads to itself"),
        (errno.ENOTCONN, "network drive is not connected"),
        (errno.EISDIR, "a folder stands where a file is due"),
        (errno.EBUSY, "something else is using"),
    ],
)
def test_a_shard_whose_bytes_were_not_read_is_not_called_damaged(tmp_path, monkeypatch, number, words):
    schema = pa.schema([pa.field("x", pa.int32(), nullable=False)])
    path = tmp_path / "shard-00000.parquet"
    parquet.write_shard(path, [{"x": 1}], schema)

    def fail(self):
        raise OSError(number, "told by the system", str(path))

    monkeypatch.setattr(type(epath.Path(path)), "read_bytes", fail)
    for read in (parquet.read_shard, parquet.is_whole):
        with pytest.raises(MachineError, match=words):
            read(path, schema)
    monkeypatch.undo()
    assert parquet.is_whole(path, schema)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("JAX_NUM_CPU_DEVICES", "abc", "JAX_NUM_CPU_DEVICES has a value that JAX cannot take: 'abc'"),
        ("JAX_NUM_CPU_DEVICES", "0", "JAX_NUM_CPU_DEVICES must be 1 or more, not 0"),
        ("JAX_ENABLE_X64", "maybe", "JAX_ENABLE_X64 has a value that JAX cannot take: 'maybe'"),
        ("JAX_PLATFORMS", "gpu,cpu", "JAX finds no platform 'gpu' here"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(tmp_path, name, value, words):
    done = subprocess.run(
        [sys.executable, "-m", "ttcjax.cli", "solve", "1+1", "--workdir", str(tmp_path)],
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("ttcjax: ")] == done.stderr.splitlines()
    assert words in done.stderr


@pytest.mark.parametrize("where", ["", "best", "best/files.json"])
def test_a_model_that_may_not_be_looked_at_is_neither_gone_nor_unfinished(tmp_path, where):
    """A link that leads to itself is what not even root may look at."""
    (tmp_path / "prm" / "best").mkdir(parents=True)
    (tmp_path / "prm" / "best" / "files.json").write_text("{}")
    folders.complete(tmp_path / "prm")
    path = tmp_path / "prm" / where
    path.unlink() if path.is_file() else shutil.rmtree(path)
    path.symlink_to(path)
    with pytest.raises(MachineError, match="a symbolic link leads to itself") as error:
        load_params(tmp_path / "prm" / "best")
    assert "damaged" not in str(error.value)
