"""The pod's network namespace, spoken with by raw netlink: links, routes, rules.

netns.py    a conversation with the kernel about one namespace, and its links
netlink.py  routes and rules on top of it
routes.py   which default route a pod of several networks has, and how replies find their way back
repair.py   what somebody took out of a pod, put back
"""
