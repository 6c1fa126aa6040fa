from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import ray

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster that all tests of a session share, because starting one takes seconds."""
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
