"""The HTTP endpoint: OpenAI's API, health and metrics over an engine.

Text exists only here. A request becomes token ids before the engine sees it, and the engine's
tokens become text, stop strings and OpenAI's shapes on the way out.
"""
