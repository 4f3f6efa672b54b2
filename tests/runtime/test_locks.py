"""Who may work in a workdir at once: the parts of one sweep, each once, and nobody beside them."""

import errno
import fcntl
import os
import subprocess
import sys
import time

import pytest
from etils import epath

from ttcjax.runtime import locks
from ttcjax.runtime.errors import MachineError, UserError

HOLD = """
import sys, time
from etils import epath
from ttcjax.runtime import locks
with locks.shared(epath.Path(sys.argv[1]), "1/2", "a sweep, settings"), locks.gate(epath.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
print("free", flush=True)
sys.stdin.readline()
"""


def test_parts_share_a_workdir_and_nobody_else_does(tmp_path):
    workdir = epath.Path(tmp_path)

    def enter(part: str, mark: str) -> None:
        with locks.shared(workdir, part, f"a sweep, {mark}"):
            pass

    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        enter("2/2", "settings")
        with pytest.raises(UserError, match=f"part 1/2 of a sweep in .* runs already, as process {holder.pid} on "):
            enter("1/2", "settings")
        with pytest.raises(UserError, match="in use by a sweep, settings, and this is a sweep, others"):
            enter("2/2", "others")
        with pytest.raises(UserError, match="in use by a sweep, settings: wait"), locks.alone(workdir):
            pass
        with pytest.raises(BlockingIOError), open(tmp_path / locks._GATE, "r+") as gate:
            fcntl.lockf(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "free\n"
        with locks.alone(workdir):
            pass
    finally:
        holder.kill()
        holder.communicate()
    enter("1/2", "others")
    assert (tmp_path / ".lock").read_text() == "a sweep, others\n", "an old mark is replaced"


def holding(code: str, folder) -> subprocess.Popen:
    """Start a process that holds a lock of `folder` until it is killed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_part_is_refused_while_a_run_holds_the_workdir(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE", 0.1)
    code = HOLD.replace(
        'locks.shared(epath.Path(sys.argv[1]), "1/2", "a sweep, settings")', "locks.alone(epath.Path(sys.argv[1]))"
    )
    holder = holding(code, tmp_path)
    try:
        with (
            pytest.raises(UserError, match=f"in use by process {holder.pid} on .*: wait for it to end"),
            locks.shared(epath.Path(tmp_path), "1/2", "a sweep, settings"),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()


# ---- file systems without locks

LEASE = """
import errno, fcntl, os, sys, time
def lockf(*_):
    raise OSError(getattr(errno, {name!r}), os.strerror(getattr(errno, {name!r})))
fcntl.lockf = lockf
from etils import epath
from ttcjax.runtime import locks
locks._RENEWAL = 0.2
with locks.{how}:
    print("held", flush=True)
    time.sleep(60)
"""
ALONE = "alone(epath.Path(sys.argv[1]))"
PART = 'shared(epath.Path(sys.argv[1]), "1/2", "a sweep, settings")'


@pytest.fixture
def without_locks(monkeypatch):
    """Make a function that takes the locks of the file system away, with an error number of its own."""

    def take_away(name: str) -> None:
        number = getattr(errno, name)

        def lockf(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "lockf", lockf)
        monkeypatch.setattr(locks, "_RENEWAL", 0.2)
        monkeypatch.setattr(locks, "_leases_told", set())

    return take_away


@pytest.mark.parametrize("name", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EINVAL"])
def test_without_locks_a_lease_holds_and_it_is_said_once(tmp_path, without_locks, caplog, name):
    """It used to be reported as in use, by a process long gone."""
    without_locks(name)
    (tmp_path / ".lock").write_text("process 1 on a host of long ago\n")
    with locks.alone(epath.Path(tmp_path)):
        pass
    with locks.alone(epath.Path(tmp_path)):
        pass
    told = [message for message in caplog.messages if "has no locks" in message]
    assert len(told) == 1
    assert os.strerror(getattr(errno, name)) in told[0]
    with locks.shared(epath.Path(tmp_path), "1/2", "a sweep"), locks.gate(epath.Path(tmp_path)):
        pass


@pytest.mark.parametrize(
    ("held", "wanted"), [(ALONE, "alone"), (ALONE, "shared"), (PART, "alone"), (PART, "same part")]
)
def test_a_lease_is_kept_by_the_living_and_lost_by_the_dead(tmp_path, without_locks, monkeypatch, held, wanted):
    without_locks("ENOLCK")
    monkeypatch.setattr(locks, "_PATIENCE", 0.1)
    folder = epath.Path(tmp_path)

    def enter() -> None:
        with locks.alone(folder) if wanted == "alone" else locks.shared(folder, "1/2", "a sweep, settings"):
            pass

    holder = holding(LEASE.format(name="ENOLCK", how=held), tmp_path)
    try:
        who = "a sweep, settings" if (held, wanted) == (PART, "alone") else f"process {holder.pid} on "
        with pytest.raises(UserError, match=f"(in use by|as) {who}"):
            enter()
    finally:
        holder.kill()
        holder.communicate()
    begin = time.monotonic()
    enter()
    assert time.monotonic() - begin < 10, "a killed process must not hold the workdir for ever"


def test_parts_of_one_sweep_share_a_lease_and_others_do_not(tmp_path, without_locks):
    without_locks("ENOLCK")
    holder = holding(LEASE.format(name="ENOLCK", how=PART), tmp_path)
    try:
        with locks.shared(epath.Path(tmp_path), "2/2", "a sweep, settings"):
            pass
        with (
            pytest.raises(UserError, match="in use by a sweep, settings, and this is a sweep, others"),
            locks.shared(epath.Path(tmp_path), "2/2", "a sweep, others"),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with locks.shared(epath.Path(tmp_path), "2/2", "a sweep, others"):
        assert (tmp_path / ".lock").read_text() == "a sweep, others\n"


@pytest.mark.parametrize("name", ["EIO", "EPERM", "ESTALE", "ENOSPC"])
def test_another_failure_of_a_lock_is_told_as_what_it_is(tmp_path, without_locks, name):
    without_locks(name)
    with pytest.raises(MachineError) as error, locks.alone(epath.Path(tmp_path)):
        pass
    assert "in use" not in str(error.value)


def test_a_file_system_with_neither_locks_nor_hard_links_is_refused(tmp_path, without_locks, monkeypatch):
    without_locks("ENOSYS")

    def link(*_, **__):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(UserError, match="neither locks nor what a lease needs"), locks.alone(epath.Path(tmp_path)):
        pass


# ---- what is left behind


def test_a_workdir_in_which_nothing_is_begun_goes_again(tmp_path):
    workdir = epath.Path(tmp_path / "a" / "b")
    with pytest.raises(ZeroDivisionError), locks.alone(workdir):
        raise ZeroDivisionError
    assert not (tmp_path / "a").exists()
    with locks.alone(workdir):
        (workdir / "data.partial").mkdir()
    assert (workdir / "data.partial").exists()


def test_a_workdir_of_the_user_stays(tmp_path):
    with locks.alone(epath.Path(tmp_path)):
        pass
    assert tmp_path.exists()


def test_a_leased_workdir_in_which_nothing_is_begun_goes_again(tmp_path, without_locks):
    without_locks("ENOLCK")
    with locks.alone(epath.Path(tmp_path / "new")):
        pass
    assert not (tmp_path / "new").exists()


RACE = """
import os, sys, time
from etils import epath
from ttcjax.runtime import locks
opened = os.open
def slow(path, *rest, **options):
    handle = opened(path, *rest, **options)
    if os.fspath(path).endswith(".lock"):
        print("opened", flush=True)
        sys.stdin.readline()
    return handle
os.open = slow
with locks.alone(epath.Path(sys.argv[1])):
    os.open = opened
    print("inside", flush=True)
    sys.stdin.readline()
"""


def test_a_lock_that_was_taken_away_between_opening_and_locking_is_not_held(tmp_path):
    """A run that made the workdir takes it away again while another one waits: the third must find the second."""
    workdir = epath.Path(tmp_path / "new")
    with locks.alone(workdir):
        waiting = subprocess.Popen(
            [sys.executable, "-c", RACE, str(workdir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert waiting.stdin is not None
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "opened\n"
    assert not workdir.exists()
    try:
        waiting.stdin.write("\n\n")  # It opens the file once more, and waits there too.
        waiting.stdin.flush()
        assert [waiting.stdout.readline() for _ in range(2)] == ["opened\n", "inside\n"]
        with pytest.raises(UserError, match=f"in use by process {waiting.pid}"), locks.alone(workdir):
            pass
    finally:
        waiting.kill()
        waiting.communicate()


def test_a_part_takes_its_own_locks_away_again(tmp_path):
    with locks.shared(epath.Path(tmp_path), "1/2", "a sweep") as is_alone, locks.gate(epath.Path(tmp_path)):
        assert is_alone()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]
    with pytest.raises(ZeroDivisionError), locks.shared(epath.Path(tmp_path), "1/2", "a sweep"):
        raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]


def tried_by_another_process(folder) -> str:
    """Return what a process says that wants the workdir for itself: nothing where it gets it."""
    script = "import sys; from etils import epath; from ttcjax.runtime import locks"
    script += "\nwith locks.alone(epath.Path(sys.argv[1])): pass"
    return subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True).stderr


def test_one_process_holds_a_workdir_once(tmp_path):
    """The system's locks belong to a process: a second holder would be let in, and its end would free the first."""
    workdir = epath.Path(tmp_path)
    with locks.alone(workdir):
        for again in (locks.alone(workdir), locks.shared(epath.Path(f"{tmp_path}/."), "1/2", "a sweep")):
            with pytest.raises(UserError, match="in use by this process"), again:
                pass
        assert f"in use by process {os.getpid()}" in tried_by_another_process(tmp_path)
    with locks.alone(workdir):
        pass
    assert tried_by_another_process(tmp_path) == "", "it is held after its end"


def test_a_file_system_that_numbers_a_file_anew_each_time_does_not_hold_a_run_up(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "samestat", lambda a, b: False)
    with locks.alone(epath.Path(tmp_path)):
        assert f"in use by process {os.getpid()}" in tried_by_another_process(tmp_path), "it runs without the lock"
