"""Attention on CPUs by a C kernel.

torch has no paged attention on CPUs, and gathering the blocks of each row costs several times as much as the attention.
"""
