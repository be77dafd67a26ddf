"""The bench measures itself: against a mock of known timing, and beside another tool."""
