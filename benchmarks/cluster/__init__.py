"""A cluster on one machine: network namespaces as machines, and the real commands as its processes.

Benchmarks of recovery and the tests of the cluster share it.
"""
