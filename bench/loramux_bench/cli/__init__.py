"""`loramux bench`: thin commands."""
