"""The key file: the names and hashed keys of clients or administrators, read again when the file changes."""

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from pathlib import Path

import structlog

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""The names of key owners; they are safe to log."""
_LINE = re.compile(rf"(?P<name>{NAME.pattern})\s+sha256:(?P<digest>[0-9a-f]{{64}})")
# The file is checked for changes at most this often; a check is one system call.
_CHECK_SECONDS = 1.0

log = structlog.stdlib.get_logger(__name__)


class KeysError(Exception):
    """Raised for a wrong key file; the message names the file, the line and the remedy."""


def digest_of(key: str) -> str:
    """The stored form of a key: the SHA-256 of its UTF-8 bytes, in hexadecimal.

    Slow hashes such as bcrypt protect passwords that people choose from being guessed. A key of `new_key` has 256
    random bits and cannot be guessed at any speed, and a slow hash would slow down every request.
    """
    return hashlib.sha256(key.encode()).hexdigest()


class KeyFile:
    """A file of keys, with one `NAME sha256:HEX` per line and comments after `#`.

    A name may have several keys, so that a client can change its key without an interruption. The file is checked for
    changes when a key is presented, at most once a second. If it has become unreadable or malformed, an error is logged
    and the old keys stay valid, because a typing mistake must not lock out all clients. An empty file revokes all keys.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.monotonic, *, setting: str = "OOD_API_KEYS_FILE"
    ) -> None:
        """Read the file.

        Args:
            path: The file.
            clock: Returns the time in seconds.
            setting: The environment variable that names the file, for messages.

        Raises:
            KeysError: The file cannot be read, or is malformed.
        """
        self._path = path
        self._setting = setting
        self._clock = clock
        self._version = self._stat()
        self._checked_at = clock()
        self._names = self._read()
        self._failure: str | None = None

    def name_of(self, key: str) -> str | None:
        """The name of the key's owner, or None for an unknown key."""
        self._reload_if_changed()
        presented = digest_of(key)
        owner = None
        # Every hash is compared, each in constant time, so that the response time reveals nothing about the valid keys.
        for digest, name in self._names.items():
            if hmac.compare_digest(digest, presented):
                owner = name
        return owner

    def _reload_if_changed(self) -> None:
        now = self._clock()
        if now - self._checked_at < _CHECK_SECONDS:
            return
        self._checked_at = now
        try:
            version = self._stat()
            if version == self._version:
                return
            self._names = self._read()
        except KeysError as error:
            # The file is read again at the next check. Each failure is logged once.
            if str(error) != self._failure:
                log.error("keys reload failed", setting=self._setting, reason=str(error))
            self._failure = str(error)
            return
        self._version = version
        self._failure = None

    def _stat(self) -> tuple[int, ...]:
        """A value that changes when the file is written or replaced, also by a symlink as in mounted secrets."""
        try:
            status = self._path.stat()
        except OSError as error:
            raise self._unreadable(error) from error
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino

    def _read(self) -> dict[str, str]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error
        names: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            content = line.partition("#")[0].strip()
            if not content:
                continue
            entry = _LINE.fullmatch(content)
            # The message does not repeat the line: it may hold a key in place of its hash.
            if entry is None:
                raise KeysError(
                    f"Line {number} of the key file {self._path} is not `NAME sha256:HEX`. "
                    "`python -m service new-key NAME` makes a key and its line."
                )
            if names.setdefault(entry["digest"], entry["name"]) != entry["name"]:
                raise KeysError(
                    f"Line {number} of the key file {self._path} gives {entry['name']} the key of another name. "
                    "Make a key for each name: `python -m service new-key NAME`."
                )
        if not names:
            log.warning("key file is empty", setting=self._setting, file=str(self._path))
        log.info("keys read", setting=self._setting, keys=len(names), clients=sorted(set(names.values())))
        return names

    def _unreadable(self, error: Exception) -> KeysError:
        return KeysError(f"The key file {self._path} cannot be read: {error}. Set {self._setting} to one that can.")
