"""What to do about an error of SQLite, with limits or with books. First match counts; substrings live here alone."""

from __future__ import annotations

import sqlite3

_FIXES = (
    (("locked", "busy"), "Another process keeps it locked: end its transaction, or use another file."),
    (("readonly", "read-only"), "Make the file and its directory writable for this process."),
    (("not a database",), "Move that file away, or name another one."),
    (("malformed", "corrupt"), "It is damaged: move it away, and restore a copy, or begin with a new one."),
    (("unable to open", "not a directory"), "Make its directory, and let this process write there."),
    (("full",), "Free some space on its disk."),
    (("disk I/O error",), "Look after its disk; if its '-wal' was removed in use, that mends itself within seconds."),
    (("no such table", "no such column", "has no column"), "Its tables are not this library's: name another file."),
    (("upgrade",), "Or name another file."),
)
_OTHERWISE = "See SQLite's documentation for this error."


def is_locked(error: BaseException) -> bool:
    """Whether others were only faster."""
    return isinstance(error, sqlite3.OperationalError) and "lock" in str(error)


def explained(error: sqlite3.Error) -> str:
    """Return what SQLite says, and what to do."""
    said = str(error)
    return f"{said}. {next((fix for marks, fix in _FIXES if any(mark in said for mark in marks)), _OTHERWISE)}"
