"""Tests one plugin against the CNI specification: without a cluster, a runtime or genie.

A check is a value: a name, a sentence, a section of the specification, the versions that it applies to, and a function
over a scene. Each runs in a separate process on a separate machine, so checks do not affect each other.

command      `harness conformance`
profile/     a vendor's profile: what is wrong with it, and as something to test
reports/     what people make of reports: a matrix, a page, a badge, what changed
report       what is printed and written; published: its form, as others read it
run          the order of checks, and one check's process
checks/      the checks, by verb
scene        what a check can do and see, written down as shell on the way
leftovers, results, wellformed   pure: what is left, a result in one form, a result's form
subject      what is tested: binary, configuration, the plugins beside it
machine      namespaces, and all that is written seen; kernel: what the kernel has
findings     what a check finds and who is at fault
call         one call of a plugin; trace: one that is killed on the way; delegate: an ipam plugin that is watched
spec         the specification's sections and versions
"""
