"""The `tdpipe` command.

Commands import heavy packages such as torch, Ray and transformers when they run, so that `--help` is quick.
"""

from tdpipe.cli.app import main

__all__ = ["main"]
