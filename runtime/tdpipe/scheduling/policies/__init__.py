"""The scheduling policies, one per file; all share the scheduler's queues, blocks, chunks and preemption."""
