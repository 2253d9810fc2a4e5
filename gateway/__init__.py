"""The online service: HTTP predict in, answer out."""
