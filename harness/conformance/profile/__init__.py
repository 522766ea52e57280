"""A vendor's profile: what is wrong with one, and one as something to test.

command        `harness profile`
check          everything that is wrong with a profile; a profile as a subject
configuration  pure: what is wrong with a CNI configuration by itself
"""
