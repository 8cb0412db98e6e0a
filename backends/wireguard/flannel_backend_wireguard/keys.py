"""Keys: 32 bytes, written as 44 characters of base64. A host's private one lies in a file of its own and stays."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from pathlib import Path

from flannel_core.errors import FlannelError
from flannel_core.secret import Secret
from flannel_core.state_file import write_atomically

KEY_BYTES = 32
KEY_FILE = "wgkey"
"""In the state directory: Go flannel's /run/flannel/wgkey where that is the default."""
KEY_FILE_VARIABLE = "WIREGUARD_KEY_FILE"
MODE = 0o400


def key_bytes(text: str) -> bytes:
    """Raises ValueError if ``text`` is no key. Never says what it is: it may be a private one."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"it has {len(key)} bytes, a key has {KEY_BYTES}")
    return key


def key_text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def public_key(private: Secret) -> str:
    """As peers write it (RFC 7748, X25519)."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return key_text(X25519PrivateKey.from_private_bytes(private.reveal()).public_key().public_bytes_raw())


def key_file(state_directory: Path) -> Path:
    """Where the private key lies."""
    given = os.environ.get(KEY_FILE_VARIABLE)
    return Path(given) if given else state_directory / KEY_FILE


def private_key(path: Path, fresh: Secret, *, dry_run: bool) -> Secret:
    """The key in ``path``; where there is no such file, ``fresh``, which is written there unless in a dry run. Raises
    FlannelError naming the file if it is none, or cannot be read or written."""
    try:
        text = path.read_text("ascii")
    except FileNotFoundError:
        if not dry_run:
            _write(path, fresh)
        return fresh
    except UnicodeDecodeError:
        text = ""
    except OSError as error:
        raise FlannelError(f"{path}: the private key cannot be read ({error.strerror}); make it readable") from error
    try:
        return Secret(key_bytes(text.strip()))
    except ValueError as error:
        raise FlannelError(
            f"could not parse private key from file: {path} ({error}); put the key back, or move the file away for a "
            "new one"
        ) from None


def new_key() -> Secret:
    """A private key, clamped as `wg genkey` does it (RFC 7748, section 5)."""
    key = bytearray(secrets.token_bytes(KEY_BYTES))
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    return Secret(bytes(key))


def _write(path: Path, key: Secret) -> None:
    try:
        write_atomically(path, key_text(key.reveal()).encode(), mode=MODE)
    except OSError as error:
        raise FlannelError(
            f"{path}: the private key cannot be written ({error.strerror}); give its directory space and make it "
            f"writable, or name another file with {KEY_FILE_VARIABLE}"
        ) from error
