"""Mutation testing: small faults are put into the code one at a time, and the tests should find each of them.

`python -m mutants` (`make mutants`) takes a seeded sample. CONTRIBUTING.md says how to read what it prints.
"""
