"""A small Quixote application, through its own WSGI adapter."""

from quixote import get_field, get_request, get_response, get_session, get_session_manager, redirect
from quixote.directory import Directory, export
from quixote.publish import Publisher
from quixote.session import SessionManager
from quixote.wsgi import QWIP


class Numbers(Directory):
    def _q_lookup(self, component):
        return "number %d" % int(component)


class Root(Directory):
    numbers = Numbers()
    _q_exports = ["numbers"]

    @export(name="")
    def index(self):
        return "<p>Quixote \u20ac</p>"

    @export
    def form(self):
        get_session().set_user(get_field("text"))
        return redirect("/session")

    @export
    def session(self):
        return "user %s" % get_session().user

    @export
    def upload(self):
        sent = get_field("file")
        return "%s %d" % (sent.orig_filename, len(sent.fp.read()))

    @export
    def leave(self):
        get_session_manager().expire_session()
        return "left"

    @export
    def plain(self):
        get_response().set_content_type("text/plain")
        get_response().set_header("X-Method", get_request().get_method())
        return "x" * 200_000

    @export
    def broken(self):
        raise RuntimeError("broken in Quixote")


app = QWIP(Publisher(Root(), session_manager=SessionManager()))
