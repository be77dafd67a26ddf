"""What to ask, and when: pure, seeded, the same in every process and run."""
