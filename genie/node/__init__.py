"""Installs genie on a node, keeps it there and removes it; and the commands for an administrator.

install.py  `genie install`: the command line
wanted.py   decides what to install: plugin, genie.conf, kubeconfig
files.py    writes the files atomically, and removes them by a journal
conflist.py genie's configuration, a list that others may extend
multus.py   converts Multus' configuration to a genie.conf
keeper.py   `genie install --keep`: keeps genie installed
patience.py when to restore genie after somebody removed it
collect.py  `genie gc`
inspect.py  `genie status`
explain.py  `genie explain`
"""
