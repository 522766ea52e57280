"""The CNI specification, 0.1.0 to 1.1.0, in Python: configurations, results, errors, and running plugins.

Knows nothing of genie or Kubernetes and imports only the standard library: it could be a library of its own.

    errors.py   CniError and the specification's codes
    fields.py   decodes JSON, and checks the types of an object's fields
    version.py  the versions of the specification, and what each can do
    config.py   a network configuration: one `.conf` plugin or a `.conflist` of several
    result.py   a plugin's result, in one internal form (1.1.0), read from and written as any version
    execute.py  runs one plugin: the Executor, and direct mode's, a child process with a time limit
    leftovers.py  finds and ends the processes that an interrupted call left running
    invoke.py   the verbs for one network: its plugins chained by prevResult, through an Executor
"""
