"""Tests mirror the rooms: genie/select/networks.py has tests/genie/select/test_networks.py. rigs/: what they share."""
