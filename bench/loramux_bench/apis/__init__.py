"""The interfaces that a load can speak, each in a file of its own, and what they have in common (`port.py`)."""
