"""The way of an inference request: bytes in, bytes out. DESIGN section 2."""
