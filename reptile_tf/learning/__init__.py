"""Adapting to tasks, learning the initialization, and scoring it."""
