"""The common parts of real clusters, kind's and others: installs networks and genie, asks, disturbs and inspects."""
