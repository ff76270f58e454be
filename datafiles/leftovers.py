"""Leftovers: files and folders that operating systems, sync programs and notebooks leave beside data."""

_NAMES = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "__macosx",
        "__pycache__",
        "@eadir",
        "@tmp",
        "#recycle",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "icon\r",
    }
)


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is no data: hidden names (`._a.png`, `.git`), `Thumbs.db`, `@eaDir`, ...

    Args:
        name: the name without its folder.
    """
    return name.startswith((".", "~$")) or name.lower() in _NAMES
