"""Prompts that put questions to a model."""

from __future__ import annotations


def question_prompt(question: str) -> str:
    """Return the question and a newline, after which the solution is expected to begin."""
    return question + "\n"
