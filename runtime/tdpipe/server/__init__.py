"""The HTTP server: OpenAI's API, health probes and metrics over an engine.

Text exists only in this package. A request is tokenized before the engine sees it; on the way out the engine's tokens
become text, are searched for stop strings and get the shape of OpenAI's responses.
"""
