"""One pipeline stage: what it does with a step, and the loop that feeds it."""
