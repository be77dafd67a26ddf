"""The generator of streams: many at a time from one process, with the time at which each frame came."""
