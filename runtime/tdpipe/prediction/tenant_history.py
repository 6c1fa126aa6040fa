"""Output lengths of each tenant, because one program tends to request answers of similar length.

Only hashes of tenant names are kept, and only for the tenants that were active last.
"""

from __future__ import annotations

import math
from hashlib import blake2b

_MAX_TENANTS = 4096
_DIGEST_BYTES = 8
_MAX_MEAN_WEIGHT = 64
"""Number of outputs after which the mean becomes a moving average, so that recent outputs dominate."""
_NO_OUTPUTS = (0, 0.0)


class TenantHistory:
    """Count and mean log length of each tenant's outputs.

    One thread may call `record` while others call `statistics`.
    """

    def __init__(self) -> None:
        self._statistics: dict[bytes, tuple[int, float]] = {}

    def statistics(self, tenant: str | None) -> tuple[float, float]:
        """Return the number of outputs and the mean of the logarithms of their lengths in tokens.

        Both are 0 for a tenant that is not known, and NaN if no tenant is given.
        """
        if tenant is None:
            return math.nan, math.nan
        return self._statistics.get(_digest(tenant), _NO_OUTPUTS)

    def record(self, tenant: str | None, output_tokens: int) -> None:
        """Add one finished output of a tenant; without a tenant, nothing is recorded."""
        if tenant is None:
            return
        key = _digest(tenant)
        count, mean = self._statistics.pop(key, _NO_OUTPUTS)
        mean += (math.log(output_tokens) - mean) / min(count + 1, _MAX_MEAN_WEIGHT)
        self._statistics[key] = (count + 1, mean)
        if len(self._statistics) > _MAX_TENANTS:
            del self._statistics[next(iter(self._statistics))]


def _digest(tenant: str) -> bytes:
    return blake2b(tenant.encode(errors="replace"), digest_size=_DIGEST_BYTES).digest()
