"""Exercises 2.1 and 2.3: gradients, and class activation maps."""
