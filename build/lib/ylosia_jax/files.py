"""Files: writing so that a reader never meets half of one, reading no more than is bearable."""

import os
import stat
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes under a temporary name in the same folder, then renames; a failure leaves what was there."""
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_bytes(path: Path, limit: int, first: int | None = None) -> bytes:
    """The content of a regular file of at most `limit` bytes, links followed; OSError says why it cannot be had.

    Args:
      first: how many bytes of it are wanted; None for all.
    """
    status = path.stat()  # before opening: to open a pipe is to wait for its other end
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a regular file")
    if status.st_size > limit:
        raise OSError(f"it has {status.st_size} bytes, more than the limit of {limit}")
    with path.open("rb") as file:
        return file.read(limit if first is None else first)
