"""What every lab stands on; it imports nothing of a lab."""
