"""The transformers seam: what a checkpoint is, a stage's layers, attention over paged KV."""
