"""What was predicted and from what, and what happened after: written to Parquet without ever holding a request up."""
