"""What is put on a node, kept there and taken away; and what a person asks of it.

install.py  `genie install`: the command line
wanted.py   what is to be on the node: plugin, genie.conf, kubeconfig
files.py    the files, put there whole and taken away again by a journal
conflist.py genie's configuration, a list that others may extend
versions.py which versions of the specification a plugin behind genie speaks
multus.py   Multus' configuration as a genie.conf
keeper.py   `genie install --keep`: genie stays on the node as it was put
patience.py when genie is put back after somebody took it away
collect.py  `genie gc`
inspect.py  `genie status` and `genie explain`
"""
