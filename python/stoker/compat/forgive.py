"""Responses of applications that worked with another server: Connection and its like are the server's to say (PEP 3333). uWSGI
sends them, Gunicorn drops them, and applications that hand on the answers of others have them.
"""

from __future__ import annotations

_told: set[str] = set()


def install(core) -> None:
    """Has such fields left out, with one line in the log for each name and process."""

    def forgives(name: str) -> bool:
        if name.lower() not in _told:
            _told.add(name.lower())
            core._log("the application's header %r is left out: it is the server's to say (PEP 3333, hop-by-hop)" % name)
        return True

    core._forgives = forgives
