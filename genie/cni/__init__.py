"""The CNI specification, 0.1.0 to 1.1.0, in Python: configurations, results, errors, and running plugins.

Knows nothing of genie or Kubernetes and imports only the standard library: it could be a library of its own.

    errors.py   CniError and the specification's codes
    fields.py   JSON decoded, and the fields of an object, each of the type it must have
    version.py  which versions there are and what each can do
    config.py   a network configuration: one `.conf` plugin or a `.conflist` of several
    result.py   what a plugin answered, in one internal form (1.1.0), read from and written as any version
    execute.py  one plugin run: the Executor, and direct mode's, a child process with a time limit
    leftovers.py  what a call that was cut off has left running, and its end
    invoke.py   the verbs over one network: its plugins chained by prevResult, through an Executor
"""
