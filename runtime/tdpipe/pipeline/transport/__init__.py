"""What travels between the processes of a pipeline: steps, reports, activations and sampled tokens."""
