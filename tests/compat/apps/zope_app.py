"""Zope, of the instance that ZOPE_INSTANCE names."""

import os

from ZPublisher.httpexceptions import HTTPExceptionHandler
from Zope2.Startup.run import make_wsgi_app

app = HTTPExceptionHandler(
    make_wsgi_app({}, os.path.join(os.environ["ZOPE_INSTANCE"], "etc", "zope.conf")), {}
)
