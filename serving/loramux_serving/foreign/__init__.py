"""Settings that people already have: the environment of LMI's and TGI's containers."""
