"""Tests of harness/conformance, with an example plugin that has one defect at a time."""
