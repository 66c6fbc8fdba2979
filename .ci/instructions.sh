#!/usr/bin/env bash
# Counts the aarch64 instructions of one detection and fails where they rose.
#
#   .ci/instructions.sh            compares with .ci/instructions.txt: more than 2 % more fail
#   .ci/instructions.sh --write    writes the counts there instead
#
# A detection is the parking model at 640x640 on `ghostlight bench`'s picture with one thread, letterbox and
# boxes included. A run of one measured frame is taken from a run of two, so that starting up cancels. Counts
# are exact, whatever else the machine does; they depend on the compiler, which is Debian's.
# The program is what .ci/aarch64.sh builds. Without an emulator that takes plugins nothing is counted.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGET_DIR=${TARGET_DIR:-target-aarch64}
PROGRAM=$TARGET_DIR/aarch64-unknown-linux-gnu/release/ghostlight
MODEL=models/parking-yolov8n-dynamicconv.safetensors
STORED=.ci/instructions.txt
CPUS='cortex-a72 cortex-a76 max'
TOLERANCE=2

skip() { echo "instructions: not counted: $1"; exit 0; }

[ -f "$PROGRAM" ] || skip "$PROGRAM is not built (.ci/aarch64.sh builds it)"
[ -f "$MODEL" ] || skip "no $MODEL"
# The static emulator takes no plugins.
if [ -z "${QEMU:-}" ] && ! command -v qemu-aarch64 >/dev/null && [ "$(id -u)" -eq 0 ]; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-user >/dev/null || true
fi
QEMU=${QEMU:-$(command -v qemu-aarch64 || true)}
[ -n "$QEMU" ] || skip "no qemu-aarch64 (Debian's qemu-user)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
plugin=$work/libinstructions.so
cc -O2 -Wall -Wextra -shared -fPIC -o "$plugin" .ci/instructions.c || skip "no C compiler"

# count CPU FRAMES: instructions of a run of that many measured frames
count() {
    "$QEMU" -cpu "$1" -plugin "$plugin,out=$work/count" "$PROGRAM" \
        bench --model $MODEL --imgsz 640 --threads 1 --iters "$2" >/dev/null 2>"$work/err" ||
        { cat "$work/err" >&2; return 1; }
    [ -s "$work/count" ] || return 1
    cat "$work/count"
    rm "$work/count"
}

count max 1 >/dev/null || skip "$QEMU runs no plugin"
failed=0
counted=
for cpu in $CPUS; do
    one=$(count "$cpu" 1)
    two=$(count "$cpu" 2)
    now=$((two - one))
    counted+="$cpu $now"$'\n'
    stored=$(awk -v cpu="$cpu" '$1 == cpu { print $2 }' $STORED 2>/dev/null || true)
    awk -v cpu="$cpu" -v now="$now" -v stored="${stored:-0}" -v most=$TOLERANCE 'BEGIN {
        printf "%-12s %7.2f M instructions a detection", cpu, now / 1e6
        if (!stored) { print ", nothing stored"; exit 0 }
        change = 100 * (now - stored) / stored
        printf ", stored %.2f M, %+.2f %%\n", stored / 1e6, change
        exit change > most
    }' || failed=1
done
if [ "${1:-}" = --write ]; then
    printf '%s' "$counted" >$STORED
    echo "instructions: written to $STORED"
elif [ $failed -ne 0 ]; then
    echo "instructions: more than $TOLERANCE % more than stored; find out why, or store the new counts with --write"
    exit 1
else
    echo "instructions: passed"
fi
