"""Who is asking: the CSRF token of a session, and the administrator."""

import functools
import hmac
import secrets

from flask import abort, redirect, request, session, url_for

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def csrf_token():
    """The token of this session, made when the first form is shown."""
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    return session["csrf"]


def check_csrf():
    """Refuses a form that this session was not given. JSON needs no token: a foreign page cannot
    send that content type without being asked first, and nobody answers that question with yes."""
    if request.method in SAFE_METHODS or request.routing_exception is not None:
        return
    if request.path.startswith("/api/"):
        if not request.is_json:
            abort(415, "The API takes application/json.")
        return
    given = request.form.get("csrf", "")
    if not hmac.compare_digest(given.encode(), session.get("csrf", "").encode()) or not given:
        abort(400, "The form is too old, or it came from another site. Load the page again.")


def check_password(given, expected):
    return hmac.compare_digest(given.encode(), expected.encode())


def admin_required(view):
    @functools.wraps(view)
    def wrapper(**kwargs):
        if session.get("admin"):
            return view(**kwargs)
        if request.method in SAFE_METHODS:
            return redirect(url_for("guestbook.admin_login"))
        return abort(403, "Only the administrator may do that.")

    return wrapper


def add_headers(response):
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    response.headers.setdefault("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
    return response


def init_app(app):
    app.before_request(check_csrf)
    app.after_request(add_headers)
    app.jinja_env.globals["csrf_token"] = csrf_token
