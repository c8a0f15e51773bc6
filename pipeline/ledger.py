"""The ledger: a row for every stage that ran, in `<root>/ledger.sqlite`, for people and for monitoring.

    sqlite3 artifacts/ledger.sqlite "SELECT date, stage, seconds, n_rows, peak_mb, result, reason FROM stages"

SQLite with a rollback journal: several workers and several runs write at once, and what a killed writer left half done
is rolled back by the next one. No result is read from it, so a night goes on without it where it is locked or damaged.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from pipeline.errors import ArtifactError
from pipeline.leftovers import alive

FILE = "ledger.sqlite"
BUSY_SECONDS = 5.0
RUNNING, DONE, FAILED, KILLED, PRESENT = "running", "done", "failed", "killed", "nothing to do"

TABLE = """
    CREATE TABLE IF NOT EXISTS stages (
        run TEXT NOT NULL, date TEXT NOT NULL, stage TEXT NOT NULL, fingerprint TEXT NOT NULL,
        started TEXT NOT NULL, seconds REAL, n_rows INTEGER, peak_mb REAL, children_peak_mb REAL,
        result TEXT NOT NULL, reason TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL
    )
"""


@dataclass(frozen=True)
class Entry:
    """What the ledger knows of a stage that ran."""

    run: str  # the same for all stages of one command
    date: str
    stage: str
    fingerprint: str
    started: str  # ISO, UTC
    seconds: float | None = None
    n_rows: int | None = None
    peak_mb: float | None = None  # of the process that ran it
    children_peak_mb: float | None = None  # of the largest process that this one has started and seen end
    result: str = RUNNING  # done, failed, killed, nothing to do
    reason: str = ""  # why it failed, or which model was used
    host: str = socket.gethostname()
    pid: int = 0


COLUMNS = tuple(field.name for field in fields(Entry))
_INSERT = f"INSERT INTO stages ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{name}' for name in COLUMNS)})"
_SAME = "run = :run AND stage = :stage AND fingerprint = :fingerprint"
# A process that ends without a word while its run goes on has asked for more tasks, and its own begins again later.
_WAS_RUNNING = f"{_SAME} AND (result = 'running' OR result = 'killed' AND reason = '')"


def write(root: Path, entry: Entry) -> None:
    """Put an entry down, in place of the same stage's of the same run while that was running.

    Rows that say `running` although their process is gone are marked as killed. Raises ArtifactError where the ledger
    cannot be written.
    """
    with _opened(root) as ledger:
        ledger.execute("BEGIN IMMEDIATE")
        ledger.execute(TABLE)
        ledger.execute(f"DELETE FROM stages WHERE {_WAS_RUNNING}", asdict(entry))
        running = ledger.execute("SELECT DISTINCT pid FROM stages WHERE result = 'running' AND host = ?", (entry.host,))
        gone = [(pid, entry.host) for (pid,) in running.fetchall() if not alive(pid)]
        ledger.executemany(
            "UPDATE stages SET result = 'killed' WHERE pid = ? AND host = ? AND result = 'running'", gone
        )
        ledger.execute(_INSERT, {**asdict(entry), "pid": os.getpid()})
        ledger.execute("COMMIT")


def lost(root: Path, entry: Entry) -> None:
    """Say of a stage whose process died that it was killed; of `entry` what names it and the reason count."""
    with _opened(root) as ledger:
        ledger.execute(f"UPDATE stages SET result = 'killed', reason = :reason WHERE {_WAS_RUNNING}", asdict(entry))


def entries(root: Path, *, last: int = 1000) -> list[Entry]:
    """Return the last entries in the order in which they were written; none before the first.

    Raises ArtifactError for a damaged ledger.
    """
    if not (root / FILE).exists():
        return []
    query = f"SELECT {', '.join(COLUMNS)} FROM stages ORDER BY rowid DESC LIMIT ?"
    with _opened(root) as ledger:
        known = ledger.execute("SELECT count(*) FROM sqlite_master WHERE name = 'stages'").fetchone()[0]
        found = ledger.execute(query, (last,)).fetchall() if known else []
    read = [Entry(*row) for row in reversed(found)]
    return [replace(entry, result=KILLED) if _is_lost(entry) else entry for entry in read]


def _is_lost(entry: Entry) -> bool:
    return entry.result == RUNNING and entry.host == socket.gethostname() and not alive(entry.pid)


@contextmanager
def _opened(root: Path) -> Iterator[sqlite3.Connection]:
    """Give a connection, and turn what SQLite says into an error with the path and the remedy."""
    path = root / FILE
    try:
        root.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as ledger:
            yield ledger
    except (sqlite3.Error, OSError) as error:
        raise ArtifactError(
            f"{path}: cannot be used ({error}); no result needs it: free space, or move it away and a new one begins"
        ) from error
