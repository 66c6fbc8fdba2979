#!/usr/bin/env bash
# The README's first command, as a new user runs it, and what it must print.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

cargo build --release
bin=${CARGO_TARGET_DIR:-target}/release/ghostlight

cargo run --release -- detect models/samples/person.jpg --save out | grep -q '"class":"person"'
[ -s out/person.jpg ]
rm -r out

export GHOSTLIGHT_MODEL=models/parking-yolov8n-dynamicconv.safetensors
"$bin" detect models/samples --save "$out/saved" --format jsonl > "$out/lines.jsonl"
[ "$(wc -l < "$out/lines.jsonl")" -eq 3 ]
grep -q '"class":"occupied"' "$out/lines.jsonl"
grep -q '"class":"empty"' "$out/lines.jsonl"
[ -s "$out/saved/parking-sunny.jpg" ]

for kernel in $("$bin" doctor | sed -n 's/.*this CPU also runs \(.*\))/\1/p' | tr -d ,) ; do
    "$bin" detect models/samples --kernel "$kernel" --format jsonl > "$out/$kernel.jsonl"
    # Everything but times must be the same, digit for digit.
    diff <(sed 's/"captured_at".*"image"/"image"/; s/,"timing_ms".*//' "$out/lines.jsonl") \
         <(sed 's/"captured_at".*"image"/"image"/; s/,"timing_ms".*//' "$out/$kernel.jsonl")
    echo "kernel $kernel: same detections"
done

"$bin" inspect "$GHOSTLIGHT_MODEL" | head -n 12
"$bin" bench --iters 10 --threads 1

if command -v python3 >/dev/null; then
    python3 tests/benches/roofline.py target/release/ghostlight models/parking-yolov8n-dynamicconv.safetensors roofline.svg
    rm roofline.svg
fi
size=$(stat -c %s "$bin")
echo "binary: $size bytes"
[ "$size" -le 10000000 ]
