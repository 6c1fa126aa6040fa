"""How long each tenant's outputs were: the same program tends to ask for answers of the same length.

Only digests of names are kept, and those of the tenants seen last.
"""

from __future__ import annotations

import math
from hashlib import blake2b

_REMEMBERED = 4096
_DIGEST_BYTES = 8
_LONGEST_MEAN = 64
"""Outputs after which later ones push out earlier ones."""
_NOTHING = (0, 0.0)


class TenantHistory:
    """Count and mean of each tenant's outputs. One thread may note while others recall."""

    def __init__(self) -> None:
        self._records: dict[bytes, tuple[int, float]] = {}

    def recall(self, tenant: str | None) -> tuple[float, float]:
        """(number of outputs, mean of the logarithms of their lengths); not-a-numbers where no tenant is named."""
        if tenant is None:
            return math.nan, math.nan
        return self._records.get(_digest(tenant), _NOTHING)

    def note(self, tenant: str | None, output_tokens: int) -> None:
        """One more output has ended."""
        if tenant is None:
            return
        name = _digest(tenant)
        count, mean = self._records.pop(name, _NOTHING)
        mean += (math.log(output_tokens) - mean) / min(count + 1, _LONGEST_MEAN)
        self._records[name] = (count + 1, mean)
        if len(self._records) > _REMEMBERED:
            del self._records[next(iter(self._records))]


def _digest(tenant: str) -> bytes:
    return blake2b(tenant.encode(errors="replace"), digest_size=_DIGEST_BYTES).digest()
