"""What runs an artifact: one module a runtime, each the only importer of its library."""
