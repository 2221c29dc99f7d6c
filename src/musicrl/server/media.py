"""Clips over HTTP: plain WAV without any metadata, whole or in ranges."""

from __future__ import annotations

import io
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from starlette.responses import Response

_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


@lru_cache(maxsize=16)
def wav(path: Path) -> bytes:
    """Return a stored FLAC file as a 16-bit WAV file with the canonical 44-byte header.

    Raises:
        OSError: the file is missing or damaged.
    """
    import soundfile

    try:
        samples, rate = cast("tuple[Any, int]", cast(Any, soundfile).read(path, dtype="int16"))
    except soundfile.LibsndfileError as error:
        raise OSError(str(error)) from error
    buffer = io.BytesIO()
    cast(Any, soundfile).write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def ranged(content: bytes, header: str | None) -> Response:
    """Return the content, or the part a Range header asks for (RFC 9110, section 14.2; one range of bytes).

    Args:
        content: the whole file.
        header: value of the Range header, None without; what is not one range of bytes is ignored, as the RFC allows.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    headers = {"accept-ranges": "bytes"}
    if match is None or match.group(1) == match.group(2) == "":
        return Response(content, media_type="audio/wav", headers=headers)
    first, last = match.groups()
    size = len(content)
    if first:
        start, end = int(first), min(int(last) if last else size - 1, size - 1)
    else:
        start, end = max(0, size - int(last)), size - 1
    if start > end:
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{size}"})
    headers["content-range"] = f"bytes {start}-{end}/{size}"
    return Response(content[start : end + 1], status_code=206, media_type="audio/wav", headers=headers)
