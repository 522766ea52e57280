"""The embedded cluster from the inside: namespaces, nodes, a kubelet with its runtime, an API server.

`harness/backends/embedded.py` makes its plan and starts it. The modules here run in processes without scenarios and
pytest. They must start fast, so they import neither the Kubernetes client nor pydantic. From the outside in:

- `binaries` and `archives` find programs, before anything else;
- `isolation` makes private pid, mount and network namespaces for a run; when they end, everything in them ends;
- `startup` starts the rest: `apiserver` starts kube-apiserver with etcd, or `emulator` (kmock); `furnish` creates its
  first objects; `rest` is a client for both;
- `nodes` connects the nodes and starts a process for each `node` (`rootfs` is its file system); it also runs the
  control plane (`control`);
- on each node, `daemons` runs networks' daemons, `kubelet` watches for pods, and `runtime` calls the plugins as
  containerd does, in `sandbox`es;
- `links` prepares a node for a network, `inventory` lists everything on it, `socket_api` connects the harness to it.

`linux` has the handful of system calls that Python 3.11 lacks.
"""
