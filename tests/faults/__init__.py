"""The fault suite: storms, crash points, power cuts, full disks, plugins and API servers that misbehave.

`nox -s faults` runs all of it; `python -m tests.faults storm --seed 7` one part, as root. Each part runs in new
network, mount and PID namespaces, so nothing outlives it. At its end it makes the runtime's DELs, and then nothing may
be left: addresses, links, rules, routes, records, temporary files, processes, descriptors.
"""
