"""Environments: made, seeded and saved; a task of our own; agents that play in them, and films of it."""
