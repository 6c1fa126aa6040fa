"""The real scheduler against a clock and a cost model instead of GPUs."""
