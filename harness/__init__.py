"""The harness: makes a cluster, installs networks and genie on it, runs scenario files, and writes a report.

pytest enters it in `plugin.py`, people in `__main__.py`. `contract.py` defines the interface of a cluster.
"""
