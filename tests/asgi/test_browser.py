"""A browser's page that holds a WebSocket and an EventSource, while the server is reloaded under it."""

import importlib.util
import signal

import pytest

pytest.importorskip("websockets")
from tests.lib import browser  # noqa: E402

APP = '''
    import asyncio, os

    PAGE = b"""<!doctype html><title>page</title><script>
    const log = {pid: new Set(), echoes: 0, closes: [], numbers: [], opened: 0, dropped: 0, text: ''};
    function open() {
        const socket = new WebSocket('ws://' + location.host + '/socket', ['v1']);
        socket.onopen = () => socket.send('0');
        socket.onmessage = event => {
            const [number, pid] = event.data.split(' ');
            log.pid.add(pid);
            log.echoes++;
            setTimeout(() => socket.readyState == 1 && socket.send(String(+number + 1)), 10);
        };
        socket.onclose = event => { log.closes.push(event.code + ' ' + event.wasClean); setTimeout(open, 20); };
    }
    open();
    const source = new EventSource('/events');
    source.onopen = () => log.opened++;
    source.onerror = () => log.dropped++;
    source.onmessage = event => log.numbers.push(+event.data);
    fetch('/upload', {method: 'POST', body: new Blob([new Uint8Array(3000000)])}).then(r => r.text()).then(t => log.text = t);
    </script>"""

    async def events(scope, send):
        last = int(dict(scope["headers"]).get(b"last-event-id", b"-1"))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"retry: 50\\n\\n", "more_body": True})
        while True:
            last += 1
            await send({"type": "http.response.body", "body": b"id: %d\\ndata: %d\\n\\n" % (last, last), "more_body": True})
            await asyncio.sleep(0.02)

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "subprotocol": "v1"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"] + " %d" % os.getpid()})
        elif scope["type"] == "http" and scope["path"] == "/events":
            await events(scope, send)
        elif scope["type"] == "http":
            size = 0
            while scope["path"] == "/upload":
                message = await receive()
                size += len(message["body"])
                if not message["more_body"]:
                    break
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
            await send({"type": "http.response.body", "body": b"%d" % size if size else PAGE})
'''


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="chromium is not installed")
@pytest.mark.parametrize("loop", ["uvloop" if importlib.util.find_spec("uvloop") else "asyncio"])
def test_a_page_over_a_reload(serve, loop):
    server = serve(APP, "--workers", "1", "--loop", loop, "--graceful-timeout", "1s")
    with browser.Browser() as page:
        page.open(server.url + "/")
        page.wait("typeof log != 'undefined' && log.echoes >= 5 && log.numbers.length >= 5 && log.text == '3000000'")
        assert page.evaluate("[log.opened, log.dropped, log.closes.length]") == [1, 0, 0]
        for _ in range(2):
            before = page.evaluate("({pids: log.pid.size, opened: log.opened, closes: log.closes.length})")
            server.send_signal(signal.SIGHUP)
            page.wait("log.pid.size > %(pids)d && log.opened > %(opened)d && log.closes.length > %(closes)d" % before)
            page.wait("log.echoes >= %d && log.numbers.length >= %d" % (page.evaluate("log.echoes") + 5, page.evaluate("log.numbers.length") + 5))
        assert set(page.evaluate("log.closes")) == {"1012 true"}
        numbers = page.evaluate("log.numbers")
        assert numbers == list(range(len(numbers)))  # none is lost, none comes twice
