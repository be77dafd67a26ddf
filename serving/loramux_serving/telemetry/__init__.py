"""What the gateway tells of itself: metrics, use by adapter, logs."""
