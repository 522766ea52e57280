"""The embedded cluster from the inside: namespaces, nodes, a kubelet with its runtime, an API server.

`harness/backends/embedded.py` makes a plan of it and has it started. What is here runs where no scenario and no pytest
is, and starts many times a day, so it imports neither the Kubernetes client nor pydantic. From the outside in:

- `binaries` and `archives` find programs, before anything else;
- `isolation` is what a run lives in: private pid, mount and network namespaces that take all with them when they end;
- `startup` brings up the rest: `apiserver` starts kube-apiserver with etcd, or `emulator`, which is kmock; `furnish` is
  what it is given first; `rest` talks to either;
- `nodes` joins the nodes: one process that becomes a `node` each (`rootfs` is its file system), and runs what a control
  plane must (`control`);
- on each node, `daemons` are networks' own, `kubelet` watches for pods and has `runtime` call the plugins as containerd
  does, in `sandbox`es;
- `links` sets a node up for a network, `inventory` lists what is on it, `socket_api` is how the harness asks.

`linux` has the handful of system calls that Python 3.11 lacks.
"""
