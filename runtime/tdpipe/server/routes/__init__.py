"""The endpoints, a file per resource: read a body, ask the engine, shape the answer."""
