"""Revisions: a model that answers again with its last answers in view, its training data, its chains of answers."""
