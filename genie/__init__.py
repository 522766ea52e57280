"""genie: one CNI plugin in front of all the others on a Kubernetes node.

The runtime calls genie like any CNI plugin. genie reads the pod's annotations, calls the plugins of the networks that
the pod asks for, and answers with one merged result. Start reading at serve.py: a call from start to end.

    __main__.py  the entry: a CNI call in direct mode, or an administrator's command (cli.py)
    node/        installs genie on a node and removes it; the administrator's commands
    agent/       genie as one long-lived process, and the shim that runtimes call
    serve.py     one call in, one reply out
    verbs/       ADD, DEL, CHECK, GC, STATUS
    select/      selects a pod's networks: the core of genie
    kernel/      the pod's namespace: default route, source routing
    records.py   the records of each container's attachments
    kube.py      the API server
    request.py   one call of the runtime, checked
    config.py    genie.conf
    event.py     Events, which `kubectl describe` shows
    locks.py     files locked by running processes
    removals.py  counts removals of genie from the node by others
    log.py       one line of JSON for each event
    cni/         the CNI specification: configurations, results, errors, running plugins

Each package imports only those below it; contracts for import-linter in pyproject.toml check this.
"""

__version__ = "0.1.0"
