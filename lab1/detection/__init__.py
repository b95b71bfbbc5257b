"""Exercise 2.2: from a classifier of digits to a detector."""
