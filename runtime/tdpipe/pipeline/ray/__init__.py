"""Stages that run as Ray actors: joining Ray, placing the stages, starting them and noticing their end.

`host.start_on_ray` is the entry point. Ray starts and stops processes; no step travels through it.
"""
