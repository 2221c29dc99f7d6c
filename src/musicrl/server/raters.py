"""Who listens: a random id in a cookie that this store's own key has signed. No account, no address, no name."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from base64 import urlsafe_b64encode
from contextlib import suppress
from pathlib import Path

from musicrl.errors import UserError

COOKIE = "musicrl_rater"
COOKIE_SECONDS = 365 * 24 * 3600
_KEY_BYTES = 32


def load_key(folder: Path) -> bytes:
    """Return the signing key of a store, made at random on first use and readable by its owner only.

    Args:
        folder: the folder of the preference store.

    Raises:
        UserError: the key file cannot be written or read, has the wrong length, or others may read it.
    """
    path = folder / "cookie.key"
    try:
        if not path.exists():
            _make(path)
        mode, key = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot use the signing key {path}: {error.strerror}; choose another folder") from error
    if os.name == "posix" and mode & 0o077:
        raise UserError(f"others may read the signing key {path}; run 'chmod 600' on it, or delete it to get a new one")
    if len(key) != _KEY_BYTES:
        raise UserError(f"the signing key {path} is damaged; delete it to get a new one (raters get new ids)")
    return key


def new_cookie(key: bytes) -> tuple[str, str]:
    """Return a new rater's id (128 random bits) and the cookie that carries it."""
    rater_id = secrets.token_urlsafe(16)
    return rater_id, f"{rater_id}.{_signature(key, rater_id)}"


def read_cookie(key: bytes, cookie: str | None) -> str | None:
    """Return the rater's id, None if there is no cookie or this key did not sign it."""
    rater_id, _, signature = (cookie or "").partition(".")
    expected = _signature(key, rater_id)
    return rater_id if rater_id and hmac.compare_digest(signature.encode(), expected.encode()) else None


def _signature(key: bytes, rater_id: str) -> str:
    digest = hmac.new(key, f"rater:{rater_id}".encode(), hashlib.sha256).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def _make(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, leaves the key of a server that was faster.
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
