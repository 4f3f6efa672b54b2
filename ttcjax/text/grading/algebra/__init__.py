"""Answers as mathematics: read into trees, brought to exact forms, and computed to many digits."""
