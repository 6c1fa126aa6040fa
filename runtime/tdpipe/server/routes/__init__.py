"""The endpoints, one file per resource. Each reads a body, submits it to the engine and shapes the answer."""
