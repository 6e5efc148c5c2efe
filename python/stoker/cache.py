"""The caches of the server, which all of its workers share: `stoker ... --cache name=pages,items=1000`.

    from stoker import cache

    cache.set("key", b"value", 60)
    cache.get("key")

Keys and values are bytes or text, and values come back as bytes. Everything takes the name of a cache as its last argument;
without one it is the first cache. Outside of a server, and without a cache, nothing is stored and nothing found.
"""

from __future__ import annotations

from stoker import _core

_functions = _core._cache_functions()

get = _functions["cache_get"]
set = _functions["cache_set"]
update = _functions["cache_update"]
delete = _functions["cache_del"]
exists = _functions["cache_exists"]
clear = _functions["cache_clear"]
inc = _functions["cache_inc"]
dec = _functions["cache_dec"]
mul = _functions["cache_mul"]
div = _functions["cache_div"]
num = _functions["cache_num"]
keys = _functions["cache_keys"]

__all__ = ["clear", "dec", "delete", "div", "exists", "get", "inc", "keys", "mul", "num", "set", "update"]
