"""One log line per finished request."""

from __future__ import annotations

import logging

from tdpipe.server.request_record import RequestRecord

_log = logging.getLogger(__name__)


def log_request(record: RequestRecord) -> None:
    """Log at INFO what a request cost and how it ended."""
    first = record.time_to_first_token
    _log.info(
        "%s %s: %d prompt tokens, %d output tokens, %s, first token after %s, %.3f s in all",
        record.id,
        record.endpoint,
        record.prompt_tokens,
        record.output_tokens,
        record.outcome,
        "none" if first is None else f"{first:.3f} s",
        record.duration,
    )
