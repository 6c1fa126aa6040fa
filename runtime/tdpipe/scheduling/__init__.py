"""What runs when: a deterministic state machine without torch, Ray, clock or I/O.

Everything it needs is an argument, so the engine, a simulator and the property tests drive the same objects.
"""
