"""Tokenizers and chat templates that come with other people's models."""

from ttcjax.text.imported.folders import load_tokenizer

__all__ = ["load_tokenizer"]
