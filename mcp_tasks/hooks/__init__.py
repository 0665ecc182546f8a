"""Telling of the ends of tasks, and of silence and deadlines, to those who cannot be pushed to."""
