"""Models from transformers: a checkpoint's description, a stage's layers, attention over the paged KV cache."""
