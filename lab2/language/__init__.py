"""Exercises 1 and 2: corpora, tokens, and how a text is drawn from a model and measured."""
