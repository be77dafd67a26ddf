"""What the kinds of clients speak, each in a file behind the port in `relay/dialect.py`."""
