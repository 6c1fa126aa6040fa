"""One pipeline stage: the executor that computes steps, and the loop that feeds it."""
