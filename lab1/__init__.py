"""Lab 1: convolutional networks, and why residual connections work. Its Trainer serves all three labs."""

from lab1.engine.signals import stop_at_once_in_scripts

stop_at_once_in_scripts()  # Ctrl-C while a script imports what it needs, some of which takes seconds
