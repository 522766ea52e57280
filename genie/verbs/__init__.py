"""The verbs over a pod's selection, a module each (specification, section 2).

    add.py     pod → selection → record → delegates, in order → one result; what fails is rolled back
    delete.py  record → delegates in reverse
    unrecorded.py  a record that is lost or damaged: whoever may hold something is asked
    check.py   record → every delegate, with the result that it gave
    gc.py      what no valid attachment explains goes, here and in every network
    collect.py what nobody will ask to delete any more, for `genie gc` and the agent
    status.py  whether an ADD can work now

What they share:

    context.py         what a call has, whichever verb it is
    default_route.py   whether a network can have the default route that the pod wants there
    device_info.py     the files that say what a network's device is
    footprint.py       which networks may be attached at the same time
    results.py         the results of several networks made one
    network_status.py  the annotations that show a pod's networks
    leases.py          host-local's store: leases that name nobody, made good
    trace.py           what a call did and how long it took, for the log
"""
