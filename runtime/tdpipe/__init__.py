"""tdpipe: LLM inference by temporally-disaggregated pipeline parallelism.

The packages are layers; each imports only what stands below it. `docs/architecture.md` has a line for
every one and follows a prompt from HTTP to token.
"""

__version__ = "0.1.0"
