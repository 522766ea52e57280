"""A vendor's profile: its mistakes, and the subject of a test from it.

command        `harness profile`
check          the mistakes in a profile; a profile as a subject
init           a new profile, from a binary and its configuration; look: what the plugin does
configuration  pure: mistakes in a CNI configuration by itself
"""
