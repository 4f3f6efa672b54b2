"""SIGTERM and Ctrl-C: held back where something is half done, and never lost."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import pytest

from ttcjax.runtime import stop
from ttcjax.runtime.progress import progress


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def send_in_vain() -> None:
    """Send a signal to code that catches everything, as a finalizer does."""
    with contextlib.suppress(BaseException):
        send()


def stopped(body: Callable[[], object], kind: type[BaseException] = stop.Stopped) -> BaseException:
    """Run what must end in a stop, and return that."""
    with pytest.raises(kind) as caught:
        body()
    return caught.value


KINDS = pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGTERM, stop.Stopped), (signal.SIGINT, KeyboardInterrupt)]
)


@KINDS
def test_a_signal_raises_at_once_where_nothing_is_half_done(number, kind):
    def body():
        with stop.watching():
            send(number)
            pytest.fail("work went on")

    stopped(body, kind)
    assert not stop.noted()


def test_a_stop_ends_with_the_status_that_shells_give():
    def body():
        with stop.watching():
            send()

    error = stopped(body, SystemExit)
    assert isinstance(error, SystemExit)
    assert error.code == 143
    assert str(error) == "stopped by SIGTERM"


@KINDS
def test_a_guarded_block_comes_to_its_end_first(number, kind):
    done = []

    def body():
        with stop.watching():
            with stop.guarded():
                send(number)
                with stop.guarded():
                    done.append("inner")
                stop.check()
                done.append("outer")
            pytest.fail("work went on")

    stopped(body, kind)
    assert done == ["inner", "outer"]


def test_a_guarded_block_without_a_program_around_it_is_guarded_too():
    done = []

    def body():
        with stop.guarded():
            send()
            done.append("saved")

    stopped(body)
    assert done == ["saved"]
    assert not stop.noted(), "what catches the exception may go on"
    stop.check()


def test_sigterm_may_come_many_times_and_a_second_ctrl_c_is_not_held_back():
    done = []

    def twice(number):
        with stop.guarded():
            send(number)
            send(number)
            done.append(number)

    stopped(lambda: twice(signal.SIGTERM))
    stopped(lambda: twice(signal.SIGINT), KeyboardInterrupt)
    assert done == [signal.SIGTERM]


def test_a_stop_that_a_library_swallows_is_obeyed_at_the_next_safe_point():
    """Code that catches everything must not turn a stop into a run that goes on."""
    done = []

    def alone():
        with stop.watching():
            send_in_vain()
            stop.check()
            done.append("the next stage")

    def in_a_loop():
        with stop.watching():
            for number in progress(range(3), "work"):
                done.append(number)
                send_in_vain()

    stopped(alone)
    stopped(in_a_loop)
    assert done == [0]


def test_obey_says_where_it_stopped_even_inside_a_guard():
    def body():
        with stop.guarded():
            send()
            stop.check()
            stop.obey("stopped at step 3")

    assert str(stopped(body)) == "stopped at step 3"


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in stop.SIGNALS]
    with stop.watching(), stop.watching(), stop.guarded():
        assert [signal.getsignal(number) for number in stop.SIGNALS] != before
    assert [signal.getsignal(number) for number in stop.SIGNALS] == before


def test_another_thread_neither_handles_nor_obeys():
    """Signals are the main thread's; an exception raised elsewhere would end work that nobody asked to end."""
    failed = []

    def work():
        try:
            with stop.watching(), stop.guarded():
                stop.check()
        except BaseException as error:
            failed.append(error)

    def body():
        with stop.watching(), stop.guarded():
            send()
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

    stopped(body)
    assert not failed


TOY = """
from ttcjax.runtime.stage import Stage
def run(settings, inputs, sink):
    (sink.folder / "x").write_text("1")
    return {}
"""


@pytest.mark.parametrize("moment", ["settle", "finish"])
def test_a_folder_is_published_whole_or_not_at_all(tmp_path, moment):
    """A stop between a record and the rename that it belongs to: the same command ends as if nothing had been."""
    for name, needs in (("toy", ()), ("next_toy", ("toy",))):
        (tmp_path / f"{name}.py").write_text(TOY + f"STAGE = Stage(lambda config: config.policy, run, needs={needs})\n")
    script = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {str(tmp_path)!r})
        from ttcjax.pipeline import run as pipeline
        from ttcjax.pipeline import stages
        from ttcjax.config import ExperimentConfig
        from ttcjax.runtime import records, stop
        from ttcjax.pipeline.stages import Stage
        stages.STAGES = (Stage("toy", "toy", "the toy"), Stage("next", "next_toy", "another"))
        write = records.write
        def then_stop(folder, record):
            write(folder, record)
            if record["complete"] is ({moment!r} == "finish"):
                os.kill(os.getpid(), signal.SIGTERM)
        if len(sys.argv) > 1:
            records.write = then_stop
        with stop.watching():
            print(list(pipeline.run(ExperimentConfig(workdir={str(tmp_path / "work")!r}))))
    """)
    first = subprocess.run([sys.executable, "-c", script, "stop"], capture_output=True, text=True)
    assert first.returncode == 143, first.stderr
    assert not (tmp_path / "work" / "next").exists()
    assert (tmp_path / "work" / "toy").exists() is (moment == "finish")
    second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert second.stdout == "['toy', 'next']\n", second.stderr
