"""The engine loop: it owns the scheduler, drives the pipeline and hands tokens to whoever asked."""
