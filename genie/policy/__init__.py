"""Network policy on every network of a pod. The agent imports it when the first policy exists; an ADD without
policies never does.

- `model` reads policy objects; `world` finds the pods that they select; `rules` decides which rules each interface of a
  pod gets; `nft` writes them as input for `nft -j`. These four are pure.
- `apply` gives the rules to the kernel, in the pod's own network namespace.
"""
