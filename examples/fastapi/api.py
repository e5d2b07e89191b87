"""An API that keeps notes, with FastAPI: whoever a token is for has their own."""

import os
from collections import defaultdict
from typing import Annotated
from urllib.parse import urlsplit

import uvicorn
from fastapi import Body, Depends, FastAPI

from authserver_resource import Access, ProtectedResource
from authserver_resource.starlette import StarletteProtection

# What clients name as `resource`, and the authorization server whose tokens are good here.
ADDRESS = os.environ.get("ADDRESS", "http://localhost:8000/")
ISSUER = os.environ.get("ISSUER", "http://localhost:6543")

protected = ProtectedResource(
    ADDRESS,
    ISSUER,
    scopes=["notes.read", "notes.write"],
    name="The notes",
    development=True,  # allows http on this machine; leave it out everywhere else
)
app = FastAPI()
protection = StarletteProtection(app, protected)
Reader = Annotated[Access, Depends(protection.requires("notes.read"))]
Writer = Annotated[Access, Depends(protection.requires("notes.write"))]
notes: dict[str, list[str]] = defaultdict(list)


@app.get("/notes")
def list_notes(reader: Reader) -> list[str]:
    return notes[reader.subject]


@app.post("/notes")
def add_note(writer: Writer, text: Annotated[str, Body(media_type="text/plain")]) -> list[str]:
    notes[writer.subject].append(text)
    return notes[writer.subject]


if __name__ == "__main__":
    uvicorn.run(app, host=urlsplit(ADDRESS).hostname, port=urlsplit(ADDRESS).port)
