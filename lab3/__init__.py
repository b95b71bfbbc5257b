"""Lab 3: deep reinforcement learning."""
