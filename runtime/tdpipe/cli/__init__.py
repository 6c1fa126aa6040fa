"""The `tdpipe` command.

torch, Ray and transformers are imported by the commands that need them, never for `--help`.
"""

from tdpipe.cli.app import main

__all__ = ["main"]
