"""Load tests. Talks HTTP only; imports no other loramux package."""
