"""Summaries made of parts: what a test does not look at is zero or empty."""

import dataclasses
import types
import typing
from typing import Any

from ttcjax.eval.report import catalogue, coding
from ttcjax.eval.report.section import Section, Summary


def filled(section: Section, part: dict[str, Any] | None = None) -> Any:
    """What a section finds, from a part of its entry in `summary.json`."""
    return coding.decode(section.result, _filled(section.result, part or {}), section.name)


def summary_of(sections: dict[str, dict[str, Any]]) -> Summary:
    """A summary with these sections, each from a part of its entry."""
    by_name = {section.name: section for section in catalogue.SECTIONS}
    return Summary("made up", "", 0, 0, {name: filled(by_name[name], part) for name, part in sections.items()})


def _filled(hint: Any, value: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        fields = coding._fields(typing.cast(type, hint))
        missing = {key: _empty(kind) for key, (_, kind, optional) in fields.items() if not optional}
        return missing | {key: _filled(fields[key][1], item) for key, item in value.items()}
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _filled(next(a for a in args if a is not type(None)), value)
    if origin is dict:
        return {key: _filled(args[1], item) for key, item in value.items()}
    if origin is list:
        return [_filled(args[0], item) for item in value]
    return value


def _empty(hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return _filled(hint, {})
    if origin in (typing.Union, types.UnionType):
        return None
    return (origin or hint)()
