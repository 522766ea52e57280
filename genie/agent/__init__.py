"""The agent: genie as one long-lived process on a node, for nodes without Python.

shim.c, shim.py   the executable that runtimes call, and where it comes from
protocol.py       the frames between the two
server.py         the socket: calls, and delegates run by the shim
slots.py          decides which plugin may run now
sieve.py          reads JSON of any size, and keeps only the needed parts
cache.py          watches this node's pods and the network objects
checker.py        CHECK on a schedule: repairs and reports changed routes, rules and addresses of pods
traffic.py        the traffic of each network, for `cni: ""` and for metrics
calico.py         how many addresses calico's pools have left
collector.py      deletes orphans, beside other calls
offline.py        network objects on the node's disk, for when the API server is away
writer.py         writes annotations after the calls
reporter.py       sends Events of pods after the calls
metrics.py        the metrics, and the HTTP server for them
daemon.py         puts it all together: `genie agent`
"""
