"""Constructs for stacks of your own: queues that lose nothing, and what refers to a deployed environment.

One rule: nothing here needs the engine's sources, so that all of it works where Stepwell is installed by pip.
"""
