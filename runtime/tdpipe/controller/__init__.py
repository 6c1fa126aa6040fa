"""The serving engine: it owns the scheduler, drives the pipeline and streams tokens to the callers."""
