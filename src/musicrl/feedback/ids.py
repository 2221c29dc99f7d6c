"""Identifiers that sort by the time they were made."""

from __future__ import annotations

import os
import threading
import time
import uuid

_lock = threading.Lock()
_last = 0

_TIMESTAMP_SHIFT = 80
_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62
_RANDOM_HIGH = 0xFFF << 64
_RANDOM_LOW = (1 << 62) - 1


def uuid7(after: str | None = None) -> str:
    """Return a version-7 UUID (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits.

    Ids made by one process rise strictly, even within a millisecond or when the clock steps back (RFC 9562, 6.2).

    Args:
        after: an id the new one must be greater than, for instance one written by another process.

    Returns:
        The id in its text form of 36 characters, whose order as text is its order in time.
    """
    global _last
    with _lock:
        milliseconds = time.time_ns() // 1_000_000
        noise = int.from_bytes(os.urandom(10), "big") & ((1 << 74) - 1)
        # 122 free bits (time, then noise) as one integer; version and variant are spread in at the end.
        value = max((milliseconds << 74) | noise, _last + 1)
        if after is not None:
            value = max(value, _free_bits(uuid.UUID(after)) + 1)
        _last = value
    high, low = value >> 62, value & _RANDOM_LOW
    bits = ((high >> 12) << _TIMESTAMP_SHIFT) | _VERSION | ((high & 0xFFF) << 64) | _VARIANT | low
    return str(uuid.UUID(int=bits))


def _free_bits(identifier: uuid.UUID) -> int:
    bits = identifier.int
    return ((bits >> _TIMESTAMP_SHIFT) << 74) | (((bits & _RANDOM_HIGH) >> 64) << 62) | (bits & _RANDOM_LOW)
