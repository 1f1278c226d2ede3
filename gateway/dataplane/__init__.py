"""The hot path: HTTP in, HTTP out, server-sent events. No FastAPI, no pydantic."""
