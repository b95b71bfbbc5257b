"""Lab 1: convolutional networks, and why residual connections work. Its Trainer serves all three labs."""
