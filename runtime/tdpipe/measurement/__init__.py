"""The laboratory: measures a pipeline's stages and runs the engine over stages that only wait.

It stands beside `server`: `tdpipe profile`, `tdpipe bench` and the benchmarks use it, and serving never imports it.
"""
