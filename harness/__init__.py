"""The harness: makes a cluster, puts networks and genie on it, and drives scenario files through it into a report.

`plugin.py` is the door for pytest, `__main__.py` for people; `backends/` says what a cluster is.
"""
