"""The fault suite: storms, crash points, power cuts, full disks, plugins and API servers that misbehave.

`nox -s faults` runs all of it; `python -m tests.faults storm --seed 7` one part, as root. Each part moves itself into
network, mount and PID namespaces of its own, so that nothing of it outlives it. Afterwards it makes the runtime's DELs,
and then nothing may be left: addresses, links, rules, routes, records, temporary files, processes, descriptors.
"""
