"""A guestbook: a small but complete Flask application on SQLite.

Everything it keeps is in one directory: $GUESTBOOK_DATA, or data/ beside this package.
"""

import logging
import os
import secrets
import tempfile
from pathlib import Path

from flask import Flask, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from . import api, db, security, views


def secret_file(path, make):
    """The text of a file that only its owner may read; the first process to come creates it."""
    if not path.exists():
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(descriptor, "w") as file:
            file.write(make() + "\n")
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass  # another worker was faster: its secret counts
        finally:
            os.unlink(temporary)
    return path.read_text().strip()


def create_app(config=None):
    app = Flask(__name__)
    default = Path(__file__).resolve().parent.parent / "data"
    app.config.from_mapping(
        DATA=os.environ.get("GUESTBOOK_DATA", str(default)),
        ADMIN_PASSWORD=os.environ.get("GUESTBOOK_ADMIN_PASSWORD"),
        PAGE_SIZE=10,
        MAX_CONTENT_LENGTH=64 * 1024,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=30 * 24 * 3600,
    )
    app.config.from_mapping(config or {})
    app.logger.setLevel(logging.INFO)

    data = Path(app.config["DATA"])
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    app.config["DATABASE"] = str(data / "guestbook.sqlite3")
    if not app.config.get("SECRET_KEY"):
        app.config["SECRET_KEY"] = secret_file(data / "secret-key", secrets.token_hex)
    if not app.config["ADMIN_PASSWORD"]:
        path = data / "admin-password"
        app.config["ADMIN_PASSWORD"] = secret_file(path, lambda: secrets.token_urlsafe(12))
        app.logger.info("the password of the administrator is in %s", path)

    db.init_app(app)
    security.init_app(app)
    app.register_blueprint(views.blueprint)
    app.register_blueprint(api.blueprint)
    app.register_error_handler(HTTPException, show_error)
    return app


def show_error(error):
    """Every error as a page, or as JSON for who asked the API. Redirects pass as they are."""
    if error.code is None or error.code < 400:
        return error
    if request.path.startswith("/api/"):
        return jsonify(error=error.name, detail=error.description), error.code
    return render_template("error.html", error=error), error.code
