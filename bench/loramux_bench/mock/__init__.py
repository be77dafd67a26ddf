"""An endpoint of known timing, to measure the bench itself against."""
