"""A servlet of Webware, put into the context of a working directory."""

import os

from Page import Page


class Stoker(Page):
    def title(self):
        return "Webware"

    def writeContent(self):
        request = self.request()
        visits = self.session().value("visits", 0) + 1
        self.session().setValue("visits", visits)
        self.writeln("<p>visits %d</p>" % visits)
        self.writeln("<p>field %s</p>" % request.field("text", "-"))
        if request.hasField("file"):
            sent = request.field("file")
            self.writeln("<p>file %s %d</p>" % (sent.filename, len(sent.file.read())))
        if request.hasField("broken"):
            raise RuntimeError("broken in Webware")
        self.writeln("<p>pid %d</p>" % os.getpid())
