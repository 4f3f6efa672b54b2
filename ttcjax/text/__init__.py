"""Text as a model sees it: tokens, prompts, steps and the grading of answers."""
