"""What may run next, each in a file: pure functions of a view that share queues, blocks, chunks and preemption."""
