import os
import urllib.request

from flask import Flask, g, jsonify, request

app = Flask(__name__)


@app.route("/user/<name>")
def user(name):
    g.user = name
    try:
        import requests

        answer = requests.get(os.environ["BACKEND"]).text
    except ImportError:
        answer = urllib.request.urlopen(os.environ["BACKEND"]).read().decode()
    assert request.path == "/user/" + g.user
    return jsonify(user=g.user, answer=answer)
