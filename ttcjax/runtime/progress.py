"""Progress of a run: metric files, progress lines, time spent in compilation, memory."""

from __future__ import annotations

import bisect
import json
import logging
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import Any, Generic, SupportsFloat, TypeVar

import jax
from etils import epath
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from ttcjax.runtime import stop
from ttcjax.runtime.files import is_remote
from ttcjax.text import terminal
from ttcjax.text.shown import shown

logger = logging.getLogger(__name__)

T = TypeVar("T")


class MetricWriter:
    """Append events to `folder/metrics.jsonl`, and to TensorBoard files beside it when tensorboardX is installed.

    Every line is a JSON object with `step`, `time` (seconds since 1970), `kind` and the event's values;
    a value that is not finite becomes null. TensorBoard files are written to local folders only.

    Args:
        folder: Created when missing; may be a `gs://` path, where lines appear at `flush` only.
        resume_step: Events of later steps, left by a run that went on after its last checkpoint, are
            dropped, as is a line cut short by a crash. 0 starts the file anew.
    """

    def __init__(self, folder: epath.PathLike, *, resume_step: int = 0):
        folder = epath.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        self._remote = is_remote(folder)
        self._lines = self._kept_lines(resume_step)
        partial = folder / "metrics.jsonl.partial"
        partial.write_text("".join(self._lines))
        partial.replace(self._path)
        self._file = None if self._remote else self._path.open("a")
        self._board = None if self._remote else _tensorboard(folder / "tensorboard", resume_step)

    def _kept_lines(self, resume_step: int) -> list[str]:
        if resume_step == 0 or not self._path.exists():
            return []
        kept = []
        for line in self._path.read_text().splitlines(keepends=True):
            try:
                step = json.loads(line)["step"]
            except (ValueError, KeyError, TypeError):
                continue
            if step <= resume_step and line.endswith("\n"):
                kept.append(line)
        return kept

    def write(self, step: int, kind: str, values: Mapping[str, SupportsFloat]) -> None:
        """Record `values` of one event, such as kind `train` at `step`."""
        finite = {k: v if math.isfinite(v) else None for k, v in ((k, float(v)) for k, v in values.items())}
        line = json.dumps({"step": step, "time": time.time(), "kind": kind, **finite}) + "\n"
        if self._file is None:
            self._lines.append(line)
        else:
            self._file.write(line)
            self._file.flush()
        if self._board is not None:
            for name, value in finite.items():
                if value is not None:
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def flush(self) -> None:
        """Make every event so far visible to readers."""
        if self._file is None:
            self._path.write_text("".join(self._lines))
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Flush and close the files."""
        self.flush()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tensorboard(folder: epath.Path, resume_step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(os.fspath(folder), purge_step=resume_step + 1 if resume_step else None, flush_secs=30)


class Progress(Generic[T]):
    """Progress of a task: a bar on a terminal, elsewhere a log line every few seconds.

    The rate, and with it the time left, leaves out what JAX spends on compiling: that comes once, at the beginning.
    Iterate over it when it wraps an iterable, or use it as a context manager and call `update`.
    """

    def __init__(self, total: int | None, description: str, items: Iterable[T] = (), *, interval: float = 5.0):
        self._total, self._description, self._items = total, description, items
        self._interval = interval
        self._done, self._first, self._note = 0, 0, ""
        self._start = self._last_line = time.monotonic()
        self._compiling = CompileClock()
        self._logged: tuple[int, str] | None = None
        self._bar: RichProgress | None = None
        self._encoding = "utf-8"

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self._items:
                yield item
                self.update()

    def __enter__(self) -> Progress[T]:
        self._start = self._last_line = time.monotonic()
        self._compiling = CompileClock()
        if sys.stderr.isatty():
            console = terminal.console(stderr=True)
            self._encoding = console.encoding
            self._bar = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=console,
            )
            self._task = self._bar.add_task(self._shown(self._description), total=self._total, rate="", note="")
            self._bar.start()
        return self

    def update(self, count: int = 1, note: str = "") -> None:
        """Say that `count` more items are done; `note` is shown beside the numbers.

        Raises:
            Stopped: A stop has been asked for; see `ttcjax.runtime.stop.check`.
        """
        stop.check()
        self._done += count
        self._note = note or self._note
        now = time.monotonic()
        if self._bar is not None:
            rate, note = f"{self._rate(now):.3g}/s", self._shown(self._note)
            self._bar.update(self._task, completed=self._done, rate=rate, note=note, refresh=False)
        elif now - self._last_line >= self._interval:
            self._last_line = now
            self._log(now)

    def _shown(self, text: str) -> str:
        return shown(text, lines=False, holds=self._encoding)

    def skip(self, count: int) -> None:
        """Count items that an earlier run has done: they are shown, but not part of the rate."""
        self._first += count
        self._done += count

    def _rate(self, now: float) -> float:
        return (self._done - self._first) / max(now - self._start - self._compiling.seconds, 1e-9)

    def _log(self, now: float) -> None:
        self._logged = (self._done, self._note)
        logger.info("%s", self._line(now))

    def _line(self, now: float) -> str:
        parts = [f"{self._description}: {self._done}" + (f"/{self._total}" if self._total is not None else "")]
        rate = self._rate(now)
        parts.append(f"{rate:.3g}/s")
        if self._total is not None and self._done < self._total and rate > 0:
            parts.append(f"{duration((self._total - self._done) / rate)} left")
        else:
            parts.append(f"{duration(now - self._start)} so far")
        return ", ".join(parts + ([self._note] if self._note else []))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif self._logged != (self._done, self._note):  # The last update may have said it all.
            self._log(time.monotonic())


def duration(seconds: float) -> str:
    """Return a time as it is read: `2.3 s`, `1 min 15 s` or `1 h 01 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def progress(work: Iterable[T] | int | None, description: str) -> Progress[T]:
    """Show how far a task has come, with its rate and the time left.

    Args:
        work: What to iterate over, or the number of items that will be reported by `update`; `None` where
            that number is unknown.
        description: A word or two, such as `labels`.

    Returns:
        An iterable over `work`, or for a number a context manager with `update(count, note)`.
    """
    if work is None or isinstance(work, int):
        return Progress(work, description)
    return Progress(len(work) if isinstance(work, Sized) else None, description, work)


_BACKEND_COMPILE = "/jax/core/compile/backend_compile_duration"
_COMPILE_EVENTS = frozenset(
    {
        "/jax/core/compile/jaxpr_trace_duration",
        "/jax/core/compile/jaxpr_to_mlir_module_duration",
        _BACKEND_COMPILE,
    }
)


class _CompileLog:
    """The process's compile times, as disjoint intervals of wall time in order.

    Tracing nests (a jitted function inside another) and is reported from the inside out, so durations
    cannot simply be added: each new interval swallows those it covers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._compilations = 0
        self._seconds = 0.0

    def record(self, event: str, start_time: float, end_time: float, **kwargs: str | int) -> None:
        if event not in _COMPILE_EVENTS:
            return
        start, end = start_time, end_time
        with self._lock:
            self._compilations += event == _BACKEND_COMPILE
            at = bisect.bisect_left(self._ends, start)
            for old_start, old_end in zip(self._starts[at:], self._ends[at:], strict=True):
                start, end = min(start, old_start), max(end, old_end)
                self._seconds -= old_end - old_start
            self._starts[at:], self._ends[at:] = [start], [end]
            self._seconds += end - start

    def totals(self) -> tuple[float, int]:
        with self._lock:
            return self._seconds, self._compilations


_COMPILE_LOG = _CompileLog()
jax.monitoring.register_event_time_span_listener(_COMPILE_LOG.record)


class CompileClock:
    """Wall seconds in which JAX traced, lowered or compiled, and how many programs XLA compiled.

    It counts from its creation, or from entry when used as a context manager, to now or to the exit.
    `CompileClock.process()` counts from the import of this module. A program taken from the persistent
    compilation cache counts as compiled.
    """

    def __init__(self) -> None:
        self._begin = _COMPILE_LOG.totals()
        self._end: tuple[float, int] | None = None

    @classmethod
    def process(cls) -> CompileClock:
        """Return a clock over the whole process."""
        clock = cls()
        clock._begin = (0.0, 0)
        return clock

    @property
    def seconds(self) -> float:
        """Wall seconds; work that overlaps, in nested functions or in threads, counts once."""
        return (self._end or _COMPILE_LOG.totals())[0] - self._begin[0]

    @property
    def compilations(self) -> int:
        """Programs compiled."""
        return (self._end or _COMPILE_LOG.totals())[1] - self._begin[1]

    def __enter__(self) -> CompileClock:
        self._begin, self._end = _COMPILE_LOG.totals(), None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end = _COMPILE_LOG.totals()


def peak_rss_bytes() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
