"""A pod's networks: annotations and configurations in, a selection of networks out.

annotations.py   the requests of a pod. Pure
selection.py     each network with its interface and arguments. Pure
networks.py      names to CNI configurations: NetworkAttachmentDefinitions and net.d
logical.py       the changes that Logicalnetworks and Physicalnetworks make to a configuration
least_loaded.py  `cni: ""`: the network with the least traffic
spent.py         `cni: ""`: networks that have no address left
devices.py       the devices that the kubelet gave to a pod
choose.py        puts it all together: a pod in, its selection out
preview.py       the same for objects that are not applied yet
"""
