"""genie: one CNI plugin in front of all the others on a Kubernetes node.

The runtime calls genie as it would any CNI plugin; genie reads what the pod asks for in its annotations, calls the
plugins of those networks, and answers with one merged result. Start reading at serve.py: a call, from end to end.

    __main__.py  the entry: a CNI call in direct mode, or an administrator's command (cli.py)
    node/        what is put on a node, kept there and taken away; what a person asks of it
    agent/       genie as one long-lived process, and the shim that runtimes call
    serve.py     one call in, one reply out
    verbs/       ADD, DEL, CHECK, GC, STATUS
    select/      which networks a pod gets: the heart of it
    kernel/      the pod's namespace: default route, source routing
    records.py   what is kept of a container's attachments
    kube.py      the API server
    request.py   one call of the runtime, checked
    config.py    genie.conf
    event.py     what is shown with an object in `kubectl describe`
    locks.py     files held by living processes
    removals.py  how often somebody took genie off the node again
    log.py       one line of JSON for each event
    cni/         the CNI specification: configurations, results, errors, running plugins

A room knows those below it; pyproject.toml has that as contracts for import-linter.
"""

__version__ = "0.1.0"
