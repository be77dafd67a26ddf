"""Whether one run is slower than another, and whether it may ship."""
