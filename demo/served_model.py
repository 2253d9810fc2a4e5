"""What the demo serves, by name."""

from typing import Final

MODEL: Final = "diagnosis"
OUTPUT: Final = "malignant"
"""The one number that both versions give: the probability that the mass is malignant."""
