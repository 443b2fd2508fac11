"""A WSGI application with one requirement."""

import bottle

application = bottle.Bottle()


@application.get("/")
def hello():
    """A greeting that names the framework."""
    bottle.response.content_type = "text/plain"
    return f"Hello from Python with bottle {bottle.__version__}\n"
