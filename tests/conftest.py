"""For every test: one thread per computation, because idle OpenMP threads spin on the few cores of a shared machine."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
