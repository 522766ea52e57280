"""The ways to a cluster, one module each; `registry.py` lists them and chooses."""
