from typing import Any


def document(name: str = "churn-q4", **changes: Any) -> dict[str, Any]:
    """A running experiment of two arms, with what a test changes; None leaves a key out."""
    made = {
        "experiment": name,
        "model": "churn",
        "unit": "user",
        "state": "running",
        "salt": "7f3c",
        "enrol_bp": 1_000,
        "variants": [
            {"name": "control", "version": "1", "bp": 5_000},
            {"name": "treatment", "version": "2", "bp": 5_000},
        ],
        **changes,
    }
    return {key: value for key, value in made.items() if value is not None}
