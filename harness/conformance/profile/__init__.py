"""A vendor's profile: its mistakes, and the subject of a test from it.

command        `harness profile`
check          everything that is wrong with a profile; a profile as a subject
configuration  pure: what is wrong with a CNI configuration by itself
"""
