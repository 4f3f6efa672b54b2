"""Tokenizers and chat templates that come with other people's models."""

from ttcjax.text.imported.tokenizer_files import load_tokenizer

__all__ = ["load_tokenizer"]
