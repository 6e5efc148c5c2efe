"""SQLite: one connection a request, and migrations that several workers may start at once."""

import fcntl
import os
import sqlite3
from contextlib import contextmanager

from flask import current_app, g

# Entry N brings the database from version N to N + 1. Never change one that was released: add one.
MIGRATIONS = [
    """
    CREATE TABLE entry (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        message TEXT NOT NULL,
        created INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER))
    );
    """,
    """
    ALTER TABLE entry ADD COLUMN mood TEXT NOT NULL DEFAULT '';
    CREATE INDEX entry_created ON entry (created);
    """,
]


def connect(path):
    connection = sqlite3.connect(path, timeout=10, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


@contextmanager
def transaction(connection):
    """Takes the write lock at once, so that what is read inside stays true until the commit."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def migrate(path):
    """Brings the database up to date. Every worker calls it; one works, the others wait for it."""
    lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection = connect(path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            for number, script in enumerate(MIGRATIONS[version:], version + 1):
                # One script with its own transaction: executescript() would commit one from outside.
                connection.executescript(
                    "BEGIN IMMEDIATE;\n%s\nPRAGMA user_version = %d;\nCOMMIT;" % (script, number)
                )
        finally:
            connection.close()
    finally:
        os.close(lock)


def get():
    """The connection of this request."""
    if "database" not in g:
        g.database = connect(current_app.config["DATABASE"])
    return g.database


def close(_error=None):
    connection = g.pop("database", None)
    if connection is not None:
        connection.close()


def init_app(app):
    migrate(app.config["DATABASE"])
    app.teardown_appcontext(close)


# What the guestbook asks of its table

COLUMNS = "id, name, message, mood, created"


def count_entries():
    return get().execute("SELECT count(*) FROM entry").fetchone()[0]


def list_entries(limit, offset):
    return get().execute(
        "SELECT %s FROM entry ORDER BY id DESC LIMIT ? OFFSET ?" % COLUMNS, (limit, offset)
    ).fetchall()


def get_entry(number):
    return get().execute("SELECT %s FROM entry WHERE id = ?" % COLUMNS, (number,)).fetchone()


def add_entry(name, message, mood):
    with transaction(get()) as connection:
        return connection.execute(
            "INSERT INTO entry (name, message, mood) VALUES (?, ?, ?)", (name, message, mood)
        ).lastrowid


def delete_entry(number):
    """Whether there was such an entry."""
    with transaction(get()) as connection:
        return connection.execute("DELETE FROM entry WHERE id = ?", (number,)).rowcount == 1


def all_entries(connection, block=500):
    """All entries from the oldest on, a block at a time: a long export holds no lock."""
    last = 0
    while True:
        rows = connection.execute(
            "SELECT %s FROM entry WHERE id > ? ORDER BY id LIMIT ?" % COLUMNS, (last, block)
        ).fetchall()
        if not rows:
            return
        yield from rows
        last = rows[-1]["id"]
