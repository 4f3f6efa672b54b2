"""Faults by the commands that meet them, on the workdir of a whole run: one line, the documented status, nothing lost.

Of commands that take the same way one stands for all.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.pipeline.test_end_to_end import command, env, shared, whole

__all__ = ["env", "shared", "whole"]  # fixtures

QUESTION = "If f(x)=3x-3, what is f(7)? Name each result."
LOAD = """
import sys
from ttcjax.cli.program import _report
from ttcjax.config import SamplerConfig
from ttcjax.runtime.errors import UserError
from ttcjax.engine.loading import load_engine
try:
    load_engine(sys.argv[1], SamplerConfig(max_tokens=48))
except UserError as error:
    sys.exit(_report(str(error), error.status, False))
"""
WITHOUT_LOCKS = """
import errno, fcntl, os
def lockf(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.lockf = lockf
"""
WITHOUT_GCSFS = "import sys\nsys.modules['gcsfs'] = None\n"


def arguments(name, workdir, *settings):
    if name == "load_engine":
        return [sys.executable, "-c", LOAD, str(workdir)]
    if name in ("list", "solve"):
        given = ["list", str(workdir)]
        if name == "solve":
            given = ["solve", QUESTION, "--workdir", str(workdir), "--strategy", "best_of_n:n=1"]
        return [sys.executable, "-m", "ttcjax.cli", *given]
    return [*command(workdir, name), *settings]


def contents(folder):
    """How often each content lies in a folder, whatever its name; the summary is that of the report made last."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith((".lock", "summary.json")) and path.parent.name != "stages":
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[digest] = found.get(digest, 0) + 1
    return found


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def start(given, **changes):
    return subprocess.run(given, env=os.environ | changes, capture_output=True, text=True, timeout=300)


def assert_one_line(done, status, words):
    """Check a failure: its status, one line of its own on stderr, no traceback, and the words."""
    lines = done.stderr.splitlines()
    own = [line for line in lines if line.startswith("ttcjax: ")]
    print(done.returncode, *own)
    assert done.returncode == status, done.stderr[-2000:]
    assert len(own) == 1, done.stderr[-2000:]
    assert lines[-1] == own[0]
    assert words in own[0]
    assert "Traceback" not in done.stderr
    return own[0]


@pytest.fixture
def workdir(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run", copy_function=shutil.copy2)
    return tmp_path / "run"


def changed_report(name):
    """Settings that make a command write something: the report again."""
    return ["--sweep.bootstrap", "210"] if name in ("run", "sweep", "report") else []


pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", ["run", "list", "solve"])
def test_no_permission(workdir, env, name):
    """Root passes by permissions unless it gives that right away."""
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, to give root's rights away")
    locked = [workdir / "prm" / "best", workdir / "stages"]
    before = contents(workdir)
    for folder in locked:
        folder.chmod(0)
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if not os.geteuid() else []
    done = start([*drop, *arguments(name, workdir, *changed_report(name))], **env)
    for folder in locked:
        folder.chmod(0o755)
    line = assert_one_line(done, 1, "permission denied at ")
    assert "damaged" not in line
    assert contents(workdir) == before


@pytest.mark.long
@pytest.mark.parametrize("name", ["run", "report", "solve"])
def test_full_disk(whole, tmp_path, env, name):
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=64m tmpfs {folder} 2>/dev/null"):
        pytest.skip("cannot mount a file system here")
    try:
        workdir = folder / "run"
        shutil.copytree(whole, workdir, copy_function=shutil.copy2)
        with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(b"x" * 4096):
                pass
        assert shutil.disk_usage(folder).free == 0
        before = contents(workdir)
        done = start(arguments(name, workdir, *changed_report(name)), **env)
        if name in ("run", "sweep", "report"):
            assert_one_line(done, 1, "no space left on the disk")
        else:
            assert done.returncode == 0, f"{name} writes nothing: {done.stderr[-2000:]}"
        after = contents(workdir)
        assert {digest: after.get(digest, 0) for digest in before} == before
        (folder / "filler").unlink()
        assert start(arguments(name, workdir, *changed_report(name)), **env).returncode == 0, "the same command goes on"
    finally:
        os.system(f"umount {folder}")


@pytest.mark.parametrize("name", ["sweep", "list", "load_engine"])
def test_absent_platform(workdir, env, name):
    before = contents(workdir)
    done = start(arguments(name, workdir), **(env | {"JAX_PLATFORMS": "cuda"}))
    if name == "list":
        assert done.returncode == 0, "it computes nothing"
    else:
        assert_one_line(done, 2, "JAX finds no platform 'cuda' here: unset JAX_PLATFORMS")
    assert contents(workdir) == before


@pytest.mark.parametrize("name", ["run", "list", "load_engine"])
def test_missing_optional_library(tmp_path, env, name):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_GCSFS)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = start(arguments(name, "gs://bucket/run"), **(env | {"PYTHONPATH": path}))
    assert_one_line(done, 2, "needs the library gcsfs, which is not installed: pip install 'ttcjax[data]'")


DAMAGE = {
    "cut file": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "flipped byte": flip,
}


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        ("cut file", "solve"),
        ("cut file", "list"),
        ("flipped byte", "run"),
        ("flipped byte", "sweep"),
        ("flipped byte", "load_engine"),
    ],
)
def test_a_damaged_model(workdir, env, whole, name, damage):
    path = largest(workdir / "prm" / "best")
    DAMAGE[damage](path)
    before = contents(workdir)
    # Made again only as far as need be: nothing else is trained anew.
    done = start(arguments(name, workdir), **env)
    after = contents(workdir)
    if name in ("solve", "load_engine"):
        line = assert_one_line(done, 2, "is damaged (")
        assert str(path) in line
    elif name == "list":
        assert done.returncode == 0
        assert f"prm          damaged: {path.relative_to(workdir / 'prm')} has " in done.stdout
    elif name == "run":
        assert done.returncode == 0, done.stderr[-2000:]
        assert f"{path} has " in done.stderr
        assert "prm is made again: it is kept as" in done.stderr
        assert (
            json.loads((workdir / "summary.json").read_text())["sections"]["accuracy"]
            == (json.loads((whole / "summary.json").read_text())["sections"]["accuracy"])
        )
    else:
        line = assert_one_line(done, 2, "is damaged (")
        assert str(path.relative_to(workdir / "prm")) in line
    assert all(after.get(digest, 0) >= count for digest, count in before.items()), "what was computed is kept"


@pytest.mark.parametrize("name", ["run", "list", "report", "load_engine"])
def test_a_foreign_file(workdir, env, name):
    """A tokenizer of another program in the place of ours, and rows of who knows whom beside ours."""
    foreign = workdir / "data" / "tokenizer.model"
    foreign.write_text(json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}))
    shutil.copy(workdir / "bank" / "shard-00000.parquet", workdir / "bank" / "shard-00000 (1).parquet")
    before = contents(workdir)
    done = start(arguments(name, workdir), **env)
    if name == "list":
        assert done.returncode == 0
        assert "data         damaged: tokenizer.model has " in done.stdout
    elif name == "run":
        assert done.returncode == 0, done.stderr[-2000:]
        assert "data is made again: it is kept as" in done.stderr
    else:
        line = assert_one_line(done, 2, "")
        assert "delete" not in line
    after = contents(workdir)
    assert all(after.get(digest, 0) >= count for digest, count in before.items()), "a foreign file is never deleted"


@pytest.mark.parametrize("name", ["sweep"])
def test_no_locks(workdir, tmp_path, env, name):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_LOCKS)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    before = contents(workdir)
    done = start(arguments(name, workdir, *changed_report(name)), **(env | {"PYTHONPATH": path}))
    assert done.returncode == 0, done.stderr[-2000:]
    told = [line for line in done.stderr.splitlines() if "has no locks (No locks available)" in line]
    assert len(told) == (1 if name in ("run", "sweep", "report") else 0)
    after = contents(workdir)
    assert all(after.get(digest, 0) >= count for digest, count in before.items())
