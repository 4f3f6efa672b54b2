"""Configs from Python files, and their settings from the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import os
import re
import runpy
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from ttcjax.config import ConfigError, ExperimentConfig
from ttcjax.runtime import faults
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_there, resolve
from ttcjax.text.shown import one_line, shown


def load_config(path: str) -> ExperimentConfig:
    """Return what `get_config()` of a Python file gives.

    Raises:
        UserError: The file is missing, fails, or has no such function.
    """
    if path.startswith("-"):
        raise UserError(f"no config file {path}; the config file comes before the settings")
    found = resolve(path, "CONFIG", kind="file")
    if not is_there(found):
        raise UserError(f"no config file {path}")
    path = os.fspath(found)
    try:
        get_config = runpy.run_path(path).get("get_config")
        if get_config is None:
            raise UserError(f"{path} has no get_config() function that returns an ExperimentConfig")
        config = get_config()
    except UserError:
        raise
    except ConfigError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:
        if isinstance(error, OSError):
            faults.raise_explained(error)
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        place = path if line is None else f"{path}, line {line}"
        raise UserError(f"{place}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ExperimentConfig):
        raise UserError(f"get_config() in {path} must return an ExperimentConfig, not {type(config).__name__}")
    return config


def override(config: ExperimentConfig, arguments: Sequence[str], prog: str = "ttcjax run CONFIG") -> ExperimentConfig:
    """Return the config with settings replaced by command-line arguments, such as `--policy.steps 800`.

    Raises:
        ConfigError: A setting is unknown (the closest one is named) or its value does not fit.
    """
    from ttcjax.data import sets  # which itself imports settings

    if not arguments:
        sets.check(config.data)
        return config
    import tyro

    asks_help = any(a in ("-h", "--help") for a in arguments)
    box = io.StringIO()
    try:
        with contextlib.nullcontext() if asks_help else contextlib.redirect_stderr(box):
            changed, unknown = tyro.cli(
                ExperimentConfig,
                prog=one_line(prog),
                args=list(arguments),
                default=_as_shown(config) if asks_help else config,
                return_unknown_args=True,
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(_reason(box.getvalue())) from stop
    if unknown:
        raise ConfigError(_unknown_setting(unknown[0]))
    sets.check(changed.data)
    return changed


def _as_shown(value: Any) -> Any:
    """Return a config whose text can be printed, for the help that prints it."""
    if isinstance(value, str):
        return shown(value, lines=False)
    if isinstance(value, tuple):
        return tuple(map(_as_shown, value))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dataclasses.replace(value, **{name: _as_shown(part) for name, part in fields.items()})


def _reason(box: str) -> str:
    """Return in one line what tyro says in the first part of its box of text."""
    words = []
    for line in box.splitlines()[1:]:
        line = line.strip("│ ")
        if not line.strip("─-"):  # A rule; on a terminal without line-drawing characters there is one on top too.
            if words:
                break
        else:
            words.append(line)
    reason = " ".join(words).removeprefix("Error parsing ").removeprefix(f"{ExperimentConfig.__name__}: ")
    reason = _NO_INT.sub(r"must be a whole number, not \1", _NO_FLOAT.sub(r"must be a number, not '\1'", reason))
    reason = _NO_LIST.sub(r"\1: whole numbers with blanks between them, such as \1 1 4 16, not \2", reason)
    # A table's own check names the table too: `labels: labels.seed must ...`.
    reason = re.sub(r"^(\w+): (?=\1\.)", "", reason)
    return reason or "these settings cannot be read"


_NO_INT = re.compile(r"invalid literal for int\(\) with base 10: ('.*')$")
_NO_LIST = re.compile(r"^(--\S*budgets): Could not find valid parse for arguments: \[(.*)\]$")
_NO_FLOAT = re.compile(r"could not convert string to float: '?(.*?)'?$")


def _unknown_setting(argument: str) -> str:
    if not argument.startswith("--"):
        return f"unexpected argument {argument!r}; settings are given as --name value"
    name = argument[2:].split("=")[0].replace("-", "_")
    known = list(_setting_names(ExperimentConfig))
    close = difflib.get_close_matches(name, known, n=1)
    # A name given without its table, `steps` for `policy.steps`, is far from the full one in letters.
    close = [k for k in known if k.endswith(f".{name}")][:1] or close
    hint = f"did you mean --{close[0]}?" if close else "`ttcjax run CONFIG --help` lists them"
    return f"unknown setting --{name}; {hint}"


def _setting_names(cls: type, prefix: str = "") -> Iterator[str]:
    instance = cls()
    for field in dataclasses.fields(cls):
        value = getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            yield from _setting_names(type(value), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"
