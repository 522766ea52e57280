"""The harness: makes a cluster, puts networks and genie on it, and drives scenario files through it into a report.

It is entered by pytest (`plugin.py`) and by people (`__main__.py`). What a cluster is to it stands in `contract.py`.
"""
