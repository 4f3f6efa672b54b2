"""Text as a model sees it: tokens, prompts, steps and the grading of answers; and as people are shown it."""
