"""HTTP in and out. The only room that knows a status code, and the only importer of FastAPI."""
