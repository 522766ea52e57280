"""The suite of the suite: harness/conformance held against an example plugin with one defect at a time."""
