"""The errors of bundles, calibrations and images: a closed set, each naming the input, the reason and the remedy."""

from pathlib import Path
from typing import ClassVar


class BundleError(Exception):
    """A bundle that cannot be used.

    Attributes:
        path: the bundle's folder.
        where: the file inside it, or the manifest field (`calibration.alpha`), that is at fault.
        reason: what is wrong there.
        remedy: what to do about it.
    """

    def __init__(self, path: Path, where: str, reason: str, remedy: str) -> None:
        super().__init__(path, where, reason, remedy)
        self.path = path
        self.where = where
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.where}: {self.reason}. {self.remedy}."


class ManifestMissing(BundleError):
    """The folder has no manifest: it is no bundle, or one that was never completely written."""


class ManifestInvalid(BundleError):
    """The manifest is not JSON, or a field of it is missing, unknown or wrong."""


class SchemaTooNew(BundleError):
    """The manifest was written for a later schema than this version reads."""


class FileMissing(BundleError):
    """A file that the manifest lists is absent or cannot be read."""


class FileCorrupt(BundleError):
    """A file's SHA-256 is not the one in the manifest."""


class PathEscapes(BundleError):
    """A path, or the symbolic link behind it, leads out of the bundle."""


class CalibrationInvalid(BundleError):
    """The calibration file is unreadable or does not match the scores that the manifest offers."""


class TokenizerInvalid(BundleError):
    """The tokenizer file is unreadable, or cannot encode every text."""


class CalibrationError(ValueError):
    """Calibration scores, or an alpha, that admit no p-value or threshold."""


class UnknownScore(ValueError):
    """A score name that the score table does not hold."""


class ImageError(ValueError):
    """Bytes that cannot be taken as one image.

    Attributes:
        type: the problem's slug, stable for clients (`undecodable-image`).
        detail: a sentence for the person who sent the bytes: what is wrong and what to do.
    """

    type: ClassVar[str] = "invalid-image"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class UndecodableImage(ImageError):
    """The bytes are no image of an accepted format, or are truncated or corrupt."""

    type = "undecodable-image"


class EmptyImage(ImageError):
    """There are no bytes at all."""

    type = "empty-input"


class ImageTooLarge(ImageError):
    """The header declares more pixels than the limit; nothing was decoded."""

    type = "image-too-large"


class AnimatedImage(ImageError):
    """The file holds several frames, so that it is not clear which one to score."""

    type = "animated-image"


class EmptyText(ValueError):
    """A text without a single token.

    Attributes:
        type: the problem's slug, stable for clients.
        detail: a sentence for the person who sent the text: what is wrong and what to do.
    """

    type: ClassVar[str] = "empty-input"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
