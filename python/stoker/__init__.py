"""stoker: an application server for Python whose engine is written in C.

The command ``stoker app:app`` (or ``python -m stoker app:app``) serves an application; see
``stoker --help``.
"""

from __future__ import annotations

__all__ = ["ClientDisconnected", "RequestCancelled", "RequestTimeout", "__version__"]


def __getattr__(name: str) -> str:
    # Late, so that the package can be imported, and explain itself, where the engine cannot.
    if name in __all__:
        from stoker import _core

        return getattr(_core, name)
    raise AttributeError("module %r has no attribute %r" % (__name__, name))
