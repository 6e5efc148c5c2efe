"""Flask's hello, unmodified."""

from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    """14 bytes."""
    return "Hello, World!\n"
