"""python-socketio: long polling, the upgrade to a WebSocket, rooms, answers to events."""

import socketio

server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*", ping_interval=5)
left = []


@server.event
async def connect(sid, environ, auth):
    if auth == "no":
        raise socketio.exceptions.ConnectionRefusedError("not you")
    await server.save_session(sid, {"name": environ.get("HTTP_X_NAME", "nobody")})


@server.event
async def echo(sid, data):
    return data


@server.event
async def name(sid):
    return (await server.get_session(sid))["name"]


@server.event
async def enter(sid, room):
    await server.enter_room(sid, room)


@server.event
async def say(sid, room, text):
    await server.emit("said", text, room=room)


@server.event
async def disconnect(sid, reason):
    left.append(reason)


async def other(scope, receive, send):
    """What is not Socket.IO."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d have left" % len(left)})


app = socketio.ASGIApp(server, other)
