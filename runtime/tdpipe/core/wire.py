"""Encoding of messages as typed msgpack, because pickle would let a peer run code.

Arrays are sent as their little-endian bytes; the type of the field gives the dtype.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def _encode_array(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot send a {type(value).__name__}")


def _decode_array(kind: Any, value: object) -> object:  # noqa: ANN401 - msgspec passes any type
    if isinstance(value, bytes):
        dtype = get_args(get_args(kind)[1])[0]
        return np.frombuffer(value, dtype=np.dtype(dtype).newbyteorder("<"))
    raise TypeError(f"cannot receive a {kind}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_array)


@cache
def _decoder(kind: Any) -> Callable[[bytes], Any]:  # noqa: ANN401 - typed by `decode`
    return msgspec.msgpack.Decoder(kind, dec_hook=_decode_array).decode


def encode(message: object) -> bytes:
    """Encode a message of `core` as msgpack."""
    return _encoder.encode(message)


def decode(data: bytes, kind: type[T]) -> T:
    """Decode a message of type `kind`.

    Raises:
        msgspec.ValidationError: the bytes are not such a message.
    """
    message: T = _decoder(kind)(data)  # type: ignore[arg-type]
    return message
