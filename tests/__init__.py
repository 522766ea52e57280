"""Tests mirror the rooms: tests/genie/select/test_networks.py tests genie/select/networks.py. rigs/: shared helpers."""
