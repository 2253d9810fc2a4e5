"""Process set-up for logs and metrics. Knows no domain word: an unrelated service could use it unchanged."""
