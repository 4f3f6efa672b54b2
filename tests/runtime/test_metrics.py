"""Metric files survive crashes, progress lines tell the truth, compile time is counted once."""

import json
import logging
import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ttcjax.runtime import progress


def _events(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_events_are_lines_of_json_with_step_and_time(tmp_path):
    with progress.MetricWriter(tmp_path) as writer:
        writer.write(3, "train", {"loss": np.float32(0.5), "lr": 1})
        assert len(_events(tmp_path)) == 1, "an event must be on disk at once, not when the run ends"
    event = _events(tmp_path)[0]
    assert event.pop("time") > 1.6e9
    assert event == {"step": 3, "kind": "train", "loss": 0.5, "lr": 1.0}


def test_values_that_are_not_finite_stay_valid_json(tmp_path):
    with progress.MetricWriter(tmp_path) as writer:
        writer.write(1, "train", {"loss": math.nan, "norm": math.inf})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert _events(tmp_path)[0]["loss"] is None


def test_resuming_drops_later_events_and_a_torn_line(tmp_path):
    with progress.MetricWriter(tmp_path) as writer:
        for step in range(1, 6):
            writer.write(step, "train", {"loss": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "ti')
    with progress.MetricWriter(tmp_path, resume_step=3) as writer:
        writer.write(4, "train", {"loss": 40})
    assert [(e["step"], e["loss"]) for e in _events(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 40)]


def test_a_new_run_starts_a_new_file(tmp_path):
    for _ in range(2):
        with progress.MetricWriter(tmp_path) as writer:
            writer.write(1, "train", {"loss": 1})
    assert len(_events(tmp_path)) == 1


def test_remote_folders_get_their_lines_at_flush(tmp_path, monkeypatch):
    """Object stores cannot append: the writer must not try."""
    assert progress.is_remote(epath.Path("gs://bucket/run"))
    monkeypatch.setattr(progress, "is_remote", lambda folder: True)
    writer = progress.MetricWriter(tmp_path)
    writer.write(1, "train", {"loss": 1})
    assert _events(tmp_path) == []
    writer.flush()
    assert len(_events(tmp_path)) == 1


def test_tensorboard_files_are_written_beside(tmp_path):
    pytest.importorskip("tensorboardX")
    with progress.MetricWriter(tmp_path) as writer:
        writer.write(1, "train", {"loss": 1})
    assert list((tmp_path / "tensorboard").iterdir())


def test_progress_passes_every_item_on(caplog):
    with caplog.at_level(logging.INFO, "ttcjax.runtime.progress"):
        assert list(progress.progress([5, 6, 7], "items")) == [5, 6, 7]
    assert "items: 3/3" in caplog.text


def test_progress_lines_hold_count_rate_time_left_and_note(caplog):
    with caplog.at_level(logging.INFO, "ttcjax.runtime.progress"), progress.Progress(8, "labels", interval=0.0) as bar:
        bar.skip(2)
        bar.update(2, note="loss 0.5")
    first = caplog.messages[0]
    assert re.fullmatch(r"labels: 4/8, \S+/s, .* left, loss 0\.5", first)


def test_skipped_items_are_not_part_of_the_rate():
    bar = progress.Progress(1000, "labels")
    bar.skip(990)
    bar.update(1)
    assert bar._rate(bar._start + 10) == pytest.approx(0.1)


def test_compiling_is_not_part_of_the_rate(monkeypatch):
    """The first batch compiles: with it in the rate, a long task seems to take many times what it takes."""
    monkeypatch.setattr(progress, "_COMPILE_LOG", progress._CompileLog())
    progress._COMPILE_LOG.record("/jax/core/compile/jaxpr_trace_duration", 0.0, 5.0)  # Of a task before.
    bar = progress.Progress(1000, "labels")
    progress._COMPILE_LOG.record("/jax/core/compile/jaxpr_trace_duration", 6.0, 14.0)
    bar.update(20)
    assert bar._rate(bar._start + 10) == pytest.approx(10, rel=0.01), "20 items in the 2 s that were not compiling"
    assert "1 min 38 s left" in bar._line(bar._start + 10)


@pytest.mark.parametrize("interval", [0.0, 1000.0])
def test_the_last_line_of_a_task_stands_once(caplog, interval):
    with (
        caplog.at_level(logging.INFO, "ttcjax.runtime.progress"),
        progress.Progress(2, "labels", interval=interval) as bar,
    ):
        bar.update()
        bar.update()
    assert [line[:11] for line in caplog.messages].count("labels: 2/2") == 1


def test_a_last_note_is_shown_although_nothing_was_done(caplog):
    with caplog.at_level(logging.INFO, "ttcjax.runtime.progress"), progress.Progress(2, "labels", interval=0.0) as bar:
        bar.update(2)
        bar._interval = 1000.0
        bar.update(0, note="9 solutions")
    assert "9 solutions" in caplog.messages[-1]


def test_progress_of_unknown_length_says_how_long_it_has_taken(caplog):
    with caplog.at_level(logging.INFO, "ttcjax.runtime.progress"), progress.progress(None, "rounds") as bar:
        bar.update(3)
    assert re.search(r"rounds: 3, .* so far", caplog.text)


def test_progress_on_a_terminal_draws_a_bar_and_logs_nothing(caplog, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with caplog.at_level(logging.INFO, "ttcjax.runtime.progress"):
        list(progress.progress(range(4), "items"))
    assert not caplog.messages
    assert "4/4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.34, "2.3 s"), (75.0, "1 min 15 s"), (119.6, "2 min 00 s"), (3700.0, "1 h 01 min")]
)
def test_durations_read_well(seconds, text):
    assert progress.duration(seconds) == text


def test_compile_clock_counts_new_programs_only():
    @jax.jit
    def f(x):
        return jnp.sin(x) * 2

    x = jnp.ones(7)
    with progress.CompileClock() as first:
        f(x).block_until_ready()
    with progress.CompileClock() as again:
        f(x).block_until_ready()
    assert first.compilations == 1
    assert first.seconds > 0
    assert (again.compilations, again.seconds) == (0, 0)
    assert progress.CompileClock.process().seconds >= first.seconds


def test_compile_time_that_overlaps_counts_once():
    log = progress._CompileLog()
    trace = "/jax/core/compile/jaxpr_trace_duration"
    for start, end in [(1.0, 2.0), (2.5, 3.0), (0.0, 4.0), (5.0, 6.0), (5.5, 7.0)]:
        log.record(trace, start, end)
    log.record("/jax/other", 0.0, 100.0)
    assert log.totals() == (pytest.approx(6.0), 0)


def test_peak_memory_is_in_bytes():
    assert 20e6 < progress.peak_rss_bytes() < 1e12
