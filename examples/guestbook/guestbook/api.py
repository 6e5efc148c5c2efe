"""The same entries as JSON."""

from flask import Blueprint, abort, current_app, jsonify, request, url_for

from . import db, entries

blueprint = Blueprint("api", __name__, url_prefix="/api")


def as_json(row):
    return dict(row, url=url_for("guestbook.entry", number=row["id"], _external=True))


@blueprint.get("/entries")
def list_entries():
    size = request.args.get("size", current_app.config["PAGE_SIZE"], type=int)
    page = request.args.get("page", 1, type=int)
    if not (1 <= size <= 100 and 1 <= page <= 10**9):
        abort(400, "size is 1 to 100, page 1 or more.")
    return jsonify(
        total=db.count_entries(),
        page=page,
        entries=[as_json(row) for row in db.list_entries(size, (page - 1) * size)],
    )


@blueprint.get("/entries/<int:number>")
def get_entry(number):
    row = db.get_entry(number)
    if row is None:
        abort(404)
    return jsonify(as_json(row))


@blueprint.post("/entries")
def add_entry():
    given = request.get_json()
    if not isinstance(given, dict):
        abort(400, "An object with name and message is expected.")
    name, message, mood, errors = entries.clean(
        given.get("name"), given.get("message"), given.get("mood", "")
    )
    if errors:
        abort(422, " ".join(errors))
    row = as_json(db.get_entry(db.add_entry(name, message, mood)))
    return jsonify(row), 201, {"Location": row["url"]}
