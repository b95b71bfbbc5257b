"""Lab 2: large language models."""
