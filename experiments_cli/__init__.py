"""`sekisho-experiments`: experiments from a terminal or from CI, through a gateway's admin port."""
