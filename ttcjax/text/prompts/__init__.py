"""Prompts as plain files that users copy, and the one way to read them."""

from ttcjax.text.prompts.prompt_file import PromptFile, names, read

__all__ = ["PromptFile", "names", "read"]
