"""What the demo adapters learn: written for this project, and turned into data sets by `generate.py`."""
