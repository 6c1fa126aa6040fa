"""Attention on CPUs by a plain C kernel.

Torch has no paged attention on CPUs, and gathering blocks for each row costs several times the
attention itself.
"""

from tdpipe.model.attention.cpu.huge_pages import advise_huge_pages

__all__ = ["advise_huge_pages"]
