"""genie: one CNI plugin in front of all the others on a Kubernetes node.

The runtime calls genie as it would any CNI plugin; genie reads what the pod asks for in its annotations, calls the
plugins of those networks, and answers with one merged result. Start reading at `serve.py` (a call, from end to end) and
`selection.py` (the decision); `__main__.py` is the door.
"""

__version__ = "0.1.0"
