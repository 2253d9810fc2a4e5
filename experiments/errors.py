"""What is wrong with an experiment's document."""


class ExperimentError(ValueError):
    """A document is not a valid experiment. Carries the key at fault, as a path."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key, self.problem = key, problem
