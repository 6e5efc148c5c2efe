from wsgiref.validate import validator

import gevent


@validator
def app(environ, start_response):
    path = environ["PATH_INFO"]
    body = b"valid"
    if path == "/body":
        body = environ["wsgi.input"].read(3)
    if path != "/":
        gevent.sleep(0)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    if path != "/stream":
        return [body]

    def blocks():
        for i in range(len(body)):
            gevent.sleep(0)
            yield body[i : i + 1]

    return blocks()
