"""Test questions found among the texts that a model is trained on."""
