// Writes assignment_vectors_growthbook.json: `node tests/golden/make_assignment_vectors.mjs` (Node.js 18 or newer).
//
// GrowthBook's published algorithm ("Build Your Own SDK": hash with hashVersion 2, getBucketRanges, chooseVariation) in
// JavaScript, whose strings are UTF-16 and whose numbers are doubles, as in the SDK that others are compared with. Nothing of
// `experiments/` is used. The tests read the file and need no Node.
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

function fnv32a(text) {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) {
    value ^= text.charCodeAt(i);
    value += (value << 1) + (value << 4) + (value << 7) + (value << 8) + (value << 24);
  }
  return value >>> 0;
}

const share = (seed, unit) => (fnv32a(fnv32a(seed + unit) + "") % 10000) / 10000;

function bucketRanges(weights, coverage) {
  let cumulative = 0;
  return weights.map((weight) => {
    const start = cumulative;
    cumulative += weight;
    return [start, start + coverage * weight];
  });
}

function chosen(n, ranges) {
  const found = ranges.findIndex(([start, end]) => n >= start && n < end);
  return found < 0 ? null : found;
}

const published = [
  ["seed", "a", 0.0505],
  ["seed", "b", 0.2696],
  ["foo", "ab", 0.2575],
  ["foo", "def", 0.2019],
  ["89123klj", "8952klfjas09ujkasdf", 0.124],
  ["90850943850283058242805", "123", 0.7516],
  ["()**(%$##$%#$#", '___)((*":&', 0.0128],
];
for (const [seed, unit, expected] of published) {
  if (share(seed, unit) !== expected) throw new Error(`${seed} ${unit}: ${share(seed, unit)}, published ${expected}`);
}

const units = {
  "ASCII": ["p0", "p7", "u42", "A", "a", "user-1", "user-10"],
  "a whole number is its decimal text": ["0", "7", "007", "-7", "18446744073709551616"],
  "delimiters inside the id": ["a/b", "split/7f3c/p7", "a-b", "a:b|c", "a b", "\n", "\t", "\u0000", '"', "{}", ","],
  "beyond ASCII": ["user-é", "user-e\u0301", "ß", "Ωμέγα"],
  "CJK": ["東京-7", "利用者", "한국", "𠮷野"],
  "emoji, beyond the BMP": ["😀", "u😀", "👩‍💻", "🇯🇵"],
  "long": ["x".repeat(300), "é".repeat(200)],
};
const edges = (seed) =>
  [0, 9999].map((edge) => {
    let number = 0;
    while (share(seed, `u${number}`) !== edge / 10000) number++;
    return `u${number}`;
  });

const buckets = published.map(([seed, unit, n]) => ({ why: "published with GrowthBook's SDKs", seed, unit, bucket: Math.round(n * 10000) }));
for (const seed of ["7f3c", "checkout-2026", "", "日本😀"]) {
  for (const [why, ids] of Object.entries({ ...units, "both edges": edges(seed) })) {
    for (const unit of ids) buckets.push({ why, seed, unit, bucket: Math.round(share(seed, unit) * 10000) });
  }
}

const splits = [
  [[5000, 5000], 10000],
  [[5000, 5000], 5000],
  [[5000, 5000], 0],
  [[2500, 2500, 2500, 2500], 10000],
  [[4000, 6000], 10000],
  [[2000, 3000, 5000], 10000],
  [[2000, 3000, 5000], 2000],
  [[3333, 3333, 3334], 10000],
  [[3333, 3333, 3334], 1],
  [[1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000], 7777],
  [[0, 10000], 10000],
  [[1, 9999], 9999],
];
const ranges = splits.map(([weights_bp, coverage_bp]) => {
  const found = bucketRanges(weights_bp.map((w) => w / 10000), coverage_bp / 10000);
  const inside = found.map(() => []);
  for (let bucket = 0; bucket < 10000; bucket++) {
    const variation = chosen(bucket / 10000, found);
    if (variation !== null) inside[variation].push(bucket);
  }
  return { weights_bp, coverage_bp, ranges: found, buckets: inside.map((own) => [own[0] ?? null, own.at(-1) ?? null, own.length]) };
});

const decisions = [];
for (const [weights_bp, coverage_bp] of splits.filter((_, index) => [0, 1, 5, 6, 9].includes(index))) {
  const found = bucketRanges(weights_bp.map((w) => w / 10000), coverage_bp / 10000);
  for (const unit of ["p0", "p7", "u42", "7", "user-1", "user-é", "東京-7", "😀", "a/b"]) {
    decisions.push({ seed: "7f3c", unit, weights_bp, coverage_bp, variation: chosen(share("7f3c", unit), found) });
  }
}

const lines = (rows) => "[\n" + rows.map((row) => "    " + JSON.stringify(row)).join(",\n") + "\n  ]";
const text = `{\n  "buckets": ${lines(buckets)},\n  "ranges": ${lines(ranges)},\n  "decisions": ${lines(decisions)}\n}\n`;
writeFileSync(join(dirname(fileURLToPath(import.meta.url)), "assignment_vectors_growthbook.json"), text);
