"""A vendor's profile: its mistakes, and the subject of a test from it.

command        `harness profile`
check          the mistakes in a profile; a profile as a subject
configuration  pure: mistakes in a CNI configuration by itself
"""
