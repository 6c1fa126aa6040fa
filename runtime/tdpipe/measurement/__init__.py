"""Measurement of a pipeline's stages, and runs of the engine with paced stages, which wait instead of computing.

`tdpipe profile`, `tdpipe bench` and the benchmarks use it; serving never imports it.
"""
