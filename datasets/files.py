"""Small file helpers shared by every stage: one error type, JSON that explains itself, atomic writes."""
from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Iterator, NamedTuple, Optional, Tuple, Union

PathLike = Union[str, "os.PathLike[str]"]


class DataError(ValueError):
    """Input that the user can mend. The message is one line: the file, what is wrong, what to do."""

    def __init__(self, message: str) -> None:
        # A DataLoader worker hands its error on as the text of a whole traceback; its last line is the message.
        super().__init__(message.rsplit("DataError: ", 1)[-1].strip().replace("\n", "\\n"))


def shorten(text: str, width: int = 80) -> str:
    """`text` quoted for a message: whatever the file held, it fits and stays on one line."""
    return repr(text if len(text) <= width else text[:width - 3] + "...")


def counted(count: int, thing: str) -> str:
    """A number of things for a message: "1 image", "1,000 training images", "2 categories"."""
    if count != 1 and thing.endswith("y"):
        thing = f"{thing[:-1]}ies"
    elif count != 1:
        thing += "es" if thing.endswith(("s", "tch")) else "s"
    return f"{count:,} {thing}"


def make_folder(folder: PathLike) -> Path:
    """Make a folder for what is to be written, and those above it; it may be there.

    Raises:
        DataError: it cannot be made, such as where a file has its name.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_folder(folder, error) from None
    return Path(folder)


def check_folder(folder: PathLike) -> None:
    """Make sure that a folder can be made and written to before hours are spent on what goes there; leaves nothing.

    Raises:
        DataError: it cannot.
    """
    nearest = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise _no_folder(folder, error) from None


def _nearest(folder: PathLike) -> Path:
    """The folder itself or the first one above it, whichever is there; it may be a file."""
    absolute = Path(folder).absolute()
    return next(place for place in (absolute, *absolute.parents) if os.path.lexists(place))


def _no_folder(folder: PathLike, error: OSError) -> DataError:
    nearest = _nearest(folder)
    if not nearest.is_dir():
        what = "a file" if nearest.is_file() else "something else"
        return DataError(f"{folder}: {nearest} is {what}, not a folder; choose another folder")
    return DataError(f"{folder}: nothing can be written in {nearest} ({error.strerror}); make room or choose another "
                     "folder")


_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS,
                 errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


def why_unwritten(error: OSError) -> Optional[str]:
    """What to tell of an error of the system where something could not be written; None for all others."""
    if error.errno not in _CANNOT_WRITE:
        return None
    place = f"{error.filename}: " if error.filename else ""
    return (f"{place}cannot be written ({error.strerror}); make room or choose another folder. What was complete is "
            "unharmed: the same command goes on from there")


@contextmanager
def atomic_write(path: PathLike, mode: str = "w", durable: bool = True) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` and rename it over `path` once it is complete and on disk.

    A reader, or a run that is killed or runs out of space, sees the old file or the new one, never a part.

    Args:
        path: the file.
        mode: "w" or "wb".
        durable: False does not wait for the disk, for thousands of small files that can be made again: if the machine
            itself goes down, the file may be empty or cut.

    Raises:
        DataError: the folder of `path` cannot be made.
        OSError: the disk is full or cannot be written; it names `path`.
    """
    path = Path(path)
    make_folder(path.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files private; outputs are for sharing
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


class FileState(NamedTuple):
    """A file as it was when it was looked up."""

    path: str
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of its last change, in nanoseconds."""


def look_up(path: str) -> Optional[FileState]:
    """The file at `path` by one `stat` call; None where there is none."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that is impossible for this file system
        return None
    return FileState(path, state.st_size, state.st_mtime_ns) if stat.S_ISREG(state.st_mode) else None


MAX_LINE = 100_000
"""Characters in a line of a table; a longer one belongs to some other kind of file."""


def read_lines(path: PathLike, missing: str = "") -> Iterator[Tuple[int, str]]:
    """Number (from 1) and text of each line of a table that is not blank; any line ending, with or without a BOM.

    Args:
        path: the file.
        missing: what the user can do when the file is not there; ends the error message.

    Raises:
        DataError: the file is missing or is not UTF-8, or a line is longer than `MAX_LINE`.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. {missing}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{number}: not UTF-8 text; save the file as UTF-8") from None
    text = text[1:] if text.startswith("\ufeff") else text
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        if len(line) > MAX_LINE:
            raise DataError(f"{path}:{number}: a line of {len(line):,} characters; this is some other kind of file")
        line = line.strip(" \t")
        if line:
            yield number, line


def write_json(path: PathLike, value: Any, indent: int | None = None) -> None:
    """Write `value` as JSON atomically, with real Unicode characters.

    Raises:
        ValueError: it holds NaN or infinity, which JSON does not have.
    """
    with atomic_write(path) as file:
        json.dump(value, file, ensure_ascii=False, indent=indent, allow_nan=False)
        file.write("\n")


def read_json(path: PathLike, missing: str = "") -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        missing: what the user can do when the file is not there; ends the error message.

    Raises:
        DataError: the file is missing, is not UTF-8, or is not JSON.
    """
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            return json.load(file)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. {missing}".rstrip()) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno} is not valid JSON ({error.msg}); "
                        "repair the file or make it again") from None
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deeply to be one of our files; make it again") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder; give the JSON file in it") from None
    except (OSError, ValueError) as error:  # no permission; a number of thousands of digits
        raise DataError(f"{path}: cannot be read ({error})") from None
