"""Messages between a benchmark and its sides: a JSON line to a process, a JSON line back."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from ttcjax.runtime.errors import UserError


def serve(tasks: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Do what the lines on standard input ask for, until they end; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            result = _peak() if order["task"] == "peak" else tasks[order["task"]](**order["settings"])
        except Exception as error:
            traceback.print_exc()
            result = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
        print(json.dumps(result), file=answers, flush=True)


def _peak() -> dict[str, Any]:
    """Return the process's own peak: what `getrusage` tells on Linux has the parent's from before the start in it."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
        return {"peak_rss_bytes": int(status.partition("VmHWM:")[2].split()[0]) * 1024}
    except (OSError, IndexError):  # Not Linux.
        return {"peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


class Side:
    """One side of a comparison: a module that calls `serve`, in a process of its own on the same cores as ours."""

    def __init__(self, name: str, module: str, env: Mapping[str, str] | None = None):
        self.name = name
        self._folder = tempfile.TemporaryDirectory()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        # Not the folder this was started in: a folder there may have the name of a package that is imported.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=self._folder.name,
            env={**os.environ, **(env or {})},
            text=True,
        )

    def call(self, task: str, **settings: Any) -> dict[str, Any]:
        """Have one task done and return what it measured.

        Raises:
            UserError: The side failed; the message has its own words.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"task": task, "settings": settings}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            self._log.seek(0)
            last = self._log.read().decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
            raise UserError(
                f"the {self.name} side of the benchmark ended in {task} with status {status}; its last words: {last[0]}"
            )
        result = json.loads(line)
        if "error" in result:
            raise UserError(f"the {self.name} side of the benchmark failed in {task}: {result['error']}")
        return result

    def peak_rss_bytes(self) -> int:
        return int(self.call("peak")["peak_rss_bytes"])

    def close(self) -> None:
        """End the process: by itself when it waits for orders, by force when it is in the middle of one."""
        try:
            with contextlib.suppress(BrokenPipeError):
                assert self._process.stdin is not None
                self._process.stdin.close()
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            self._log.close()
            self._folder.cleanup()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()
