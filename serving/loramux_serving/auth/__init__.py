"""Who calls, and what they may do: keys, the ring that knows them, the desk that makes them."""
