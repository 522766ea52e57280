"""The backends, one module each; `registry.py` lists them and chooses one."""
