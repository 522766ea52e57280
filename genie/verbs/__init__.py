"""The verbs for a pod's selection, a module each (specification, section 2).

    add.py     pod → selection → record → delegates, in order → one result; a failed ADD is rolled back
    delete.py  record → delegates in reverse
    unrecorded.py  DEL with a lost or damaged record: every network that may hold something is called
    check.py   record → every delegate, with its own result
    gc.py      removes attachments that are not valid, from the records and from every network
    collect.py finds and deletes orphans, for `genie gc` and the agent
    status.py  whether an ADD can work now

What they share:

    context.py         the state of one call, for every verb
    default_route.py   whether a network can have the default route that the pod asks for
    device_info.py     the files that describe a network's device
    footprint.py       which networks may be attached at the same time
    results.py         combines the results of several networks
    network_status.py  the annotations that show a pod's networks
    leases.py          repairs leases without an owner in host-local's store
    trace.py           the steps of a call and their times, for the log
"""
