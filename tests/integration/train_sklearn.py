"""Train what MLServer serves, with the scikit-learn that it has: a program for the other environment (`make peers`).

It is given where the artifact goes and a JSON file of rows and targets; it prints what the model answers for the rows.
"""

import json
import sys
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import LinearRegression

if __name__ == "__main__":
    artifact, training = map(Path, sys.argv[1:])
    rows, target = (np.asarray(part) for part in json.loads(training.read_text(encoding="utf-8")))
    model = LinearRegression().fit(rows, target)
    joblib.dump(model, artifact)  # the form that MLServer's runtime reads
    json.dump(model.predict(rows).tolist(), sys.stdout)
