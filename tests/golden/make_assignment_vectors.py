"""Writes assignment_vectors_eppo.json: `python tests/golden/make_assignment_vectors.py`.

Eppo's published algorithm (MD5Sharder, and the two shards that a split must match), from the hexadecimal text that
`md5sum` of the GNU core utilities prints. Nothing of `experiments/` is used. The tests read the file and need neither.
"""

import json
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
PUBLISHED = {"test-input": 5619}
"""In the tests of Eppo's SDKs, where salt, hyphen and subject are one text; of 10,000 shards."""

UNITS = {
    "ASCII": ["p0", "p7", "u42", "A", "a", "user-1", "user-10"],
    "a whole number is its decimal text": ["0", "7", "007", "-7", "18446744073709551616"],
    "delimiters inside the id": ["a/b", "-", "a-b", "-a", "a:b|c", "a b", "\n", "\t", '"', "{}", ","],
    "beyond ASCII": ["user-é", "user-e\u0301", "ß", "Ωμέγα"],
    "CJK": ["東京-7", "利用者", "한국", "𠮷野"],
    "emoji, beyond the BMP": ["😀", "u😀", "👩\u200d💻", "🇯🇵"],
    "long": ["x" * 300, "é" * 200],
}
SALTS = ("traffic-7f3c", "split-7f3c", "checkout-2026", "", "日本😀")
SPLITS = (
    ((5_000, 5_000), 10_000),
    ((5_000, 5_000), 5_000),
    ((2_000, 3_000, 5_000), 10_000),
    ((2_000, 3_000, 5_000), 2_000),
    ((1_000,) * 10, 7_777),
)


def shard(text: str) -> int:
    printed = subprocess.run(["md5sum"], input=text.encode(), capture_output=True, check=True).stdout
    return int(printed[:8], 16) % 10_000


def decided(unit: str, weights: tuple[int, ...], traffic: int) -> int | None:
    if not 0 <= shard(f"traffic-7f3c-{unit}") < traffic:
        return None
    split, start = shard(f"split-7f3c-{unit}"), 0
    for index, weight in enumerate(weights):
        if start <= split < start + weight:
            return index
        start += weight
    raise AssertionError


def main() -> None:
    assert all(shard(text) == expected for text, expected in PUBLISHED.items())
    buckets = [{"why": "published with Eppo's SDKs", "salt": "test", "unit": "input", "bucket": 5619}]
    buckets += [
        {"why": why, "salt": salt, "unit": unit, "bucket": shard(f"{salt}-{unit}")}
        for salt in SALTS
        for why, units in UNITS.items()
        for unit in units
    ]
    decisions = [
        {
            "salt": "7f3c",
            "unit": unit,
            "weights_bp": weights,
            "coverage_bp": traffic,
            "variation": decided(unit, weights, traffic),
        }
        for weights, traffic in SPLITS
        for unit in ("p0", "p7", "u42", "7", "user-1", "user-é", "東京-7", "😀", "a/b")
    ]
    parts = [
        f'  "{name}": [\n' + ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in rows) + "\n  ]"
        for name, rows in (("buckets", buckets), ("decisions", decisions))
    ]
    written = "{\n" + ",\n".join(parts) + "\n}\n"
    (HERE / "assignment_vectors_eppo.json").write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
