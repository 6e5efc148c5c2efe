"""A small Flask application: templates, sessions, forms, uploads, streams, files, an API."""

import hashlib
import io
import os
import sys

import flask

app = flask.Flask(__name__)
app.secret_key = "only for tests"
PAGE = """<!doctype html><title>{{ title }}</title>
<p>{{ text }}</p><a href="{{ url_for('form', _external=True) }}">form</a>"""


@app.get("/")
def index():
    return flask.render_template_string(PAGE, title="Flask", text="<escaped> \u20ac")


@app.route("/form", methods=["GET", "POST"])
def form():
    if flask.request.method == "GET":
        return "<form method=post><input name=text></form>"
    flask.session["text"] = flask.request.form["text"]
    flask.flash("stored")
    return flask.redirect(flask.url_for("stored"))


@app.get("/stored")
def stored():
    return flask.jsonify(text=flask.session.get("text"), messages=flask.get_flashed_messages())


@app.post("/upload")
def upload():
    sent = flask.request.files["file"]
    digest = hashlib.sha256()
    size = 0
    for block in iter(lambda: sent.stream.read(65536), b""):
        digest.update(block)
        size += len(block)
    return {"name": sent.filename, "size": size, "sha256": digest.hexdigest()}


@app.route("/json", methods=["POST", "PUT", "PATCH"])
def echo_json():
    return flask.jsonify(flask.request.get_json())


@app.get("/stream")
def stream():
    @flask.stream_with_context
    def blocks():
        for number in range(100):
            yield "%s %d\n" % (flask.request.args["word"], number)

    return flask.Response(blocks(), mimetype="text/plain")


@app.get("/file")
def file():
    return flask.send_file(sys.executable, mimetype="application/octet-stream")


@app.get("/memory")
def memory():
    return flask.send_file(io.BytesIO(b"0123456789"), mimetype="text/plain", conditional=True)


@app.get("/broken")
def broken():
    raise RuntimeError("broken in Flask")


@app.get("/abort/<int:code>")
def abort(code):
    flask.abort(code)


@app.get("/empty")
def empty():
    return "", 204


@app.get("/url")
def url():
    return {
        "url": flask.request.url,
        "remote": flask.request.remote_addr,
        "secure": flask.request.is_secure,
        "path": flask.request.path,
        "pid": os.getpid(),
    }


@app.get("/<path:text>/tail")
def tail(text):
    return flask.jsonify(text)
