"""Simulation: the engine's scheduler runs against a clock and a cost model instead of GPUs."""
