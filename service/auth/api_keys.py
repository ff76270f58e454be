"""The keys that clients and administrators may present: a file of names and hashes, read again when it changes."""

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from pathlib import Path

import structlog

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Whose key it is; goes into the log as it is."""
_LINE = re.compile(rf"(?P<name>{NAME.pattern})\s+sha256:(?P<digest>[0-9a-f]{{64}})")
# Between two looks at the file; a look is one system call.
_LOOK_SECONDS = 1.0

log = structlog.stdlib.get_logger(__name__)


class KeysError(Exception):
    """The key file cannot be used; the message names the file, the line and the remedy."""


def digest_of(key: str) -> str:
    """How a key is stored: the SHA-256 of its UTF-8 bytes, in hexadecimal.

    Not bcrypt or the like: those slow down the guessing of passwords that people thought up. A key of `new_key` has 256
    random bits, which nobody guesses at any speed, and a slow hash would cost every single request.
    """
    return hashlib.sha256(key.encode()).hexdigest()


class KeyFile:
    """Names by the hash of their key, one `NAME sha256:HEX` a line, `#` before a comment.

    A name may have several keys, so that a client can change its key without a pause. The file is looked at again at
    most once a second, when a key is presented. One that has become unreadable or wrong is an error in the log and the
    keys stay as they were: an editor's slip must not lock everybody out. An empty one does, as it says.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.monotonic, *, setting: str = "OOD_API_KEYS_FILE"
    ) -> None:
        """Read the file, which `setting` names. Raises `KeysError`."""
        self._path = path
        self._setting = setting
        self._clock = clock
        self._state = self._look()
        self._looked = clock()
        self._names = self._read()

    def name_of(self, key: str) -> str | None:
        """Whose key this is; None for nobody's."""
        self._follow()
        presented = digest_of(key)
        found = None
        # Every hash is compared, each in constant time: how long a wrong key takes tells nothing about the right ones.
        for digest, name in self._names.items():
            if hmac.compare_digest(digest, presented):
                found = name
        return found

    def _follow(self) -> None:
        now = self._clock()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        try:
            state = self._look()
            if state == self._state:
                return
            self._state = state
            self._names = self._read()
        except KeysError as error:
            log.error("the keys stay as they were", setting=self._setting, reason=str(error))

    def _look(self) -> tuple[int, int, int]:
        """What differs once the file was written, or replaced as mounted secrets are (a link that moves on)."""
        try:
            status = self._path.stat()
        except OSError as error:
            raise self._unreadable(error) from error
        return status.st_mtime_ns, status.st_size, status.st_ino

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
            # The line itself stays out of the message: it may be a key that somebody put where its hash belongs.
            if entry is None:
                raise KeysError(
                    f"Line {number} of the key file {self._path} is not `NAME sha256:HEX`. "
                    "`python -m service new-key NAME` makes a key and its line."
                )
            if names.setdefault(entry["digest"], entry["name"]) != entry["name"]:
                raise KeysError(
                    f"Line {number} of the key file {self._path} gives {entry['name']} the key of another name. "
                    "Give each its own: `python -m service new-key NAME`."
                )
        if not names:
            log.warning("the key file holds no key: every request that needs one is refused", file=str(self._path))
        log.info("keys read", setting=self._setting, keys=len(names), clients=sorted(set(names.values())))
        return names

    def _unreadable(self, error: Exception) -> KeysError:
        return KeysError(f"The key file {self._path} cannot be read: {error}. Set {self._setting} to one that can.")
