"""The agent: genie as one long-lived process on a node, for nodes without a Python of their own.

shim.c, shim.py   the executable that runtimes call, and where it comes from
protocol.py       the frames between the two
server.py         the socket: calls, and delegates run by the shim
slots.py          whose plugin may run now
sieve.py          JSON of any size, of which only what is needed is kept
cache.py          this node's pods and the network objects, watched
checker.py        CHECK by itself: routes, rules and addresses of pods, put back and reported
collector.py      what nobody asks to delete any more, deleted beside other calls
offline.py        network objects on the node's disk, for when the API server is away
writer.py         annotations, written back behind the calls
reporter.py       Events of pods, sent behind the calls
metrics.py        what is counted, and the HTTP server for it
daemon.py         all of it put together: `genie agent`
"""
