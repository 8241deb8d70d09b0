"""Mutation testing: changes the code by one small fault at a time, and checks that a test fails.

`python -m mutants` (`make mutants`) tries a seeded sample. CONTRIBUTING.md explains how to read the output.
"""
