"""Exercises 3.1 to 3.3: data sets of texts, encoders and their trainer, and what is measured with them."""
