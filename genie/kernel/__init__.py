"""The pod's network namespace, by raw netlink: links, routes, rules.

netns.py    a netlink connection to one network namespace, and its links
netlink.py  adds routes and rules
routes.py   decides the default route of a pod with several networks, and the routes of replies
repair.py   restores missing routes and rules
"""
