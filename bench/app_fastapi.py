"""The same document by FastAPI."""

from fastapi import FastAPI

from apps import DOCUMENT

app = FastAPI()


@app.get("/")
async def document():
    """About 1 kB of JSON."""
    return DOCUMENT
