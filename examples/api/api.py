"""An API that keeps notes, with Pyramid: whoever a token is for has their own."""

import os
from collections import defaultdict
from urllib.parse import urlsplit

from pyramid.config import Configurator
from pyramid.view import view_config
from waitress import serve

from authserver_resource import ProtectedResource

# What clients name as `resource`, and the authorization server whose tokens are good here.
ADDRESS = os.environ.get("ADDRESS", "http://localhost:8000/")
ISSUER = os.environ.get("ISSUER", "http://localhost:6543")

notes = defaultdict(list)


@view_config(route_name="notes", request_method="GET", requires="notes.read", renderer="json")
def list_notes(request):
    return notes[request.identity.subject]


@view_config(route_name="notes", request_method="POST", requires="notes.write", renderer="json")
def add_note(request):
    notes[request.identity.subject].append(request.body.decode(errors="replace"))
    return notes[request.identity.subject]


protected = ProtectedResource(
    ADDRESS,
    ISSUER,
    scopes=["notes.read", "notes.write"],
    name="The notes",
    development=True,  # allows http on this machine; leave it out everywhere else
)
with Configurator() as config:
    config.include("authserver_resource.pyramid")
    config.protect(protected)
    config.add_route("notes", "/notes")
    config.scan()
    app = config.make_wsgi_app()

if __name__ == "__main__":
    serve(app, host=urlsplit(ADDRESS).hostname, port=urlsplit(ADDRESS).port)
