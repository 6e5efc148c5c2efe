"""The pages."""

import csv
import io
import sqlite3
import tempfile
import time
from datetime import datetime, timezone

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    flash,
    redirect,
    render_template,
    request,
    send_file,
    session,
    url_for,
)

from . import db, entries, security

blueprint = Blueprint("guestbook", __name__)


@blueprint.app_template_filter("date")
def format_date(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


@blueprint.app_template_filter("hue")
def name_hue(name):
    """A colour for a name, the same each time: one of the twelve of the style sheet."""
    return sum(name.encode("utf-8")) % 12


def show_index(form=None, status=200):
    size = current_app.config["PAGE_SIZE"]
    total = db.count_entries()
    pages = max(1, -(-total // size))
    page = request.args.get("page", 1, type=int)
    if not 1 <= page <= pages:
        abort(404)
    return (
        render_template(
            "index.html",
            entries=db.list_entries(size, (page - 1) * size),
            total=total,
            page=page,
            pages=pages,
            form=form or {"name": session.get("name", ""), "message": "", "mood": ""},
            moods=entries.MOODS,
            name_length=entries.NAME_LENGTH,
            message_length=entries.MESSAGE_LENGTH,
        ),
        status,
    )


@blueprint.get("/")
def index():
    return show_index()


@blueprint.post("/")
def sign():
    name, message, mood, errors = entries.clean(
        request.form.get("name"), request.form.get("message"), request.form.get("mood", "")
    )
    if errors:
        for error in errors:
            flash(error, "error")
        return show_index({"name": name, "message": message, "mood": mood}, 422)
    number = db.add_entry(name, message, mood)
    session["name"] = name
    session.permanent = True
    flash("Thank you, %s!" % name, "success")
    return redirect(url_for(".entry", number=number), 303)


@blueprint.get("/entries/<int:number>")
def entry(number):
    row = db.get_entry(number)
    if row is None:
        abort(404)
    return render_template("entry.html", entry=row)


@blueprint.post("/entries/<int:number>/delete")
@security.admin_required
def delete(number):
    if not db.delete_entry(number):
        abort(404)
    flash("Entry %d was deleted." % number, "success")
    return redirect(url_for(".index"), 303)


@blueprint.get("/login")
def login():
    return render_template("login.html", name=session.get("name", ""))


@blueprint.post("/login")
def login_send():
    name = request.form.get("name", "").strip()
    if not name or len(name) > entries.NAME_LENGTH:
        flash("A name has 1 to %d characters." % entries.NAME_LENGTH, "error")
        return render_template("login.html", name=name[: entries.NAME_LENGTH]), 422
    session["name"] = name
    session.permanent = bool(request.form.get("remember"))
    flash("Welcome, %s!" % name, "success")
    return redirect(url_for(".index"), 303)


@blueprint.post("/logout")
def logout():
    session.clear()
    flash("Good bye!", "success")
    return redirect(url_for(".index"), 303)


@blueprint.get("/admin/login")
def admin_login():
    return render_template("admin.html")


@blueprint.post("/admin/login")
def admin_login_send():
    password = request.form.get("password", "")
    if not security.check_password(password, current_app.config["ADMIN_PASSWORD"]):
        time.sleep(0.2)  # a guess has its price; other threads and workers go on meanwhile
        flash("That is not the password.", "error")
        return render_template("admin.html"), 403
    session["admin"] = True
    flash("You may delete entries now.", "success")
    return redirect(url_for(".index"), 303)


def csv_cell(value):
    """Keeps a spreadsheet from taking a visitor's text for a formula."""
    text = str(value)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


@blueprint.get("/export.csv")
def export():
    """All entries as CSV, streamed: the memory it takes does not depend on their number."""
    path = current_app.config["DATABASE"]

    def rows():
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        writer.writerow(("id", "created", "name", "mood", "message"))
        connection = db.connect(path)
        try:
            for row in db.all_entries(connection):
                writer.writerow(
                    (
                        row["id"],
                        datetime.fromtimestamp(row["created"], timezone.utc).isoformat(),
                        csv_cell(row["name"]),
                        row["mood"],
                        csv_cell(row["message"]),
                    )
                )
                if buffer.tell() > 8192:
                    yield buffer.getvalue()
                    buffer.seek(0)
                    buffer.truncate()
            yield buffer.getvalue()
        finally:
            connection.close()

    return Response(
        rows(),
        mimetype="text/csv",
        headers={"Content-Disposition": "attachment; filename=guestbook.csv"},
    )


@blueprint.get("/backup")
@security.admin_required
def backup():
    """A consistent copy of the database while others write to it."""
    copy = tempfile.NamedTemporaryFile(prefix="guestbook-", suffix=".sqlite3")
    target = sqlite3.connect(copy.name)
    try:
        db.get().backup(target)
    finally:
        target.close()
    return send_file(
        open(copy.name, "rb"),  # the name goes with `copy`, the open file stays
        mimetype="application/vnd.sqlite3",
        as_attachment=True,
        download_name="guestbook.sqlite3",
        max_age=0,
    )


@blueprint.get("/healthz")
def health():
    db.get().execute("SELECT 1")
    return Response("ok\n", mimetype="text/plain")
