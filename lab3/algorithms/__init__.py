"""REINFORCE, deep Q-learning and proximal policy optimisation, each in reading order, and what they keep in memory."""
