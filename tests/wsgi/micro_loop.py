"""A loop of requests without sockets, for bench/instructions: micro_loop.py CORE SCENARIO COUNT."""
import importlib.machinery
import importlib.util
import sys

HELLO = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n"
BROWSER = (
    b"GET /articles/2024/index.html?page=2 HTTP/1.1\r\n"
    b"Host: www.example.org\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Connection: keep-alive\r\n"
    b"Referer: https://www.example.org/articles/\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n"
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"Sec-Fetch-Dest: document\r\n"
    b"Sec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
    b"Priority: u=0, i\r\n\r\n"
)
SCENARIOS = {"hello": HELLO, "browser": BROWSER}


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello, World!"]


def main():
    path, scenario, count = sys.argv[1:]
    loader = importlib.machinery.ExtensionFileLoader("_core", path)
    core = importlib.util.module_from_spec(importlib.util.spec_from_loader("_core", loader))
    loader.exec_module(core)
    sys.modules["micro_application"] = sys.modules["__main__"]
    host = core.host()
    if core.load(host, "micro_application") != 0:
        raise SystemExit("the application was not loaded")
    response = core.loop(host, SCENARIOS[scenario], int(count))
    if not response.endswith(b"\r\n\r\nHello, World!"):
        raise SystemExit("unexpected response: %r" % response)


if __name__ == "__main__":
    main()
