"""uWSGI's internal routing: which of its rules the server has. They go to its option `uwsgi-route` as they are; what an
action does is in src/serve/uroute*.c. Here is what becomes of those that are not there: what answers or protects is
refused, because without it the server would do something else; the rest is left out with a warning.
"""

from __future__ import annotations

from .result import Setting, fail

# Without these a request is answered as before.
LEFT_OUT = frozenset(
    "alarm chunked donotoffload fixcl flush forcecl gzip metricdec metricdiv metricinc metricmul metricset offload "
    "setprocname signal tofile to-file cachestore cache-store memcachedstore memcached-store redisstore redis-store".split()
)

PROXY = "a proxy of HTTP, as nginx, does that"
CACHE = "the caches are the application's here, by `import uwsgi`"
LOGIN = "the application, or what stands before the server, has to ask who it is"

REFUSED = {
    "uwsgi": PROXY,
    "proxyuwsgi": PROXY,
    "http": PROXY,
    "httpdumb": PROXY,
    "httpconnect": PROXY,
    "proxyhttp": PROXY,
    "proxyhttpconnect": PROXY,
    "hash": PROXY,
    "cache": CACHE,
    "cache-continue": CACHE,
    "cachevar": CACHE,
    "cacheset": CACHE,
    "cacheinc": CACHE,
    "cachedec": CACHE,
    "cachemul": CACHE,
    "cachediv": CACHE,
    "memcached": CACHE,
    "memcached-continue": CACHE,
    "redis": CACHE,
    "redis-continue": CACHE,
    "ldapauth": LOGIN,
    "ldapauth-next": LOGIN,
    "radius": LOGIN,
    "radius-next": LOGIN,
    "spnego": LOGIN,
    "basicauth-last": "write basicauth, and last: in a rule of its own",
    "disableheaders": "a response without a head is none",
    "setfile": "applications are loaded at the start: `mount` names them",
    "sethome": "all applications have one interpreter",
    "chdir": "the working directory is the process's, not that of a request",
    "setmodifier1": "there are no other languages to choose",
    "setmodifier2": "there are no other languages to choose",
}


def action(option: str, value: str) -> str:
    """The name of a rule's action; "" of a label, and where there is none."""
    if option.endswith("-label"):
        return ""
    if not option.endswith("-run"):
        value = value.partition(" ")[2]
    name, colon, _ = value.partition(":")
    return name if colon else ""


def is_left_out(option: str, setting: Setting) -> bool:
    """Whether a rule can only be left out; ConfigError for one that may not be."""
    name = action(option, setting.value or "")
    if name in LEFT_OUT:
        return True
    if name in REFUSED:
        raise fail(
            setting.file,
            setting.line,
            "%s: the action %s: is not there, and left out it would change who answers: %s",
            setting.name,
            name,
            REFUSED[name],
        )
    return False


def rule(option: str, value: str, left_out: bool) -> str:
    """A rule for `uwsgi-route`. One that is left out keeps its place, which goto: may count."""
    if left_out:
        return option.partition("route")[0] + "route-label "
    return "%s %s" % (option, value)
