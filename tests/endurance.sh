#!/usr/bin/env bash
# What a service must hold for a year, tried for a while on this machine.
#
#   tests/endurance.sh soak [MINUTES]   at full rate, default 30: memory, descriptors, gaps in seq, latency
#   tests/endurance.sh idle [SECONDS]   5 raw pictures a second, default 60: CPU time beside the network's
#   tests/endurance.sh broker [SECONDS] lines a second with a broker, a frozen one and none, by turns, default 15 each
#
# PROGRAM is the binary, default target/release/ghostlight; MODEL and IMGSZ what it runs.
set -euo pipefail
cd "$(dirname "$0")/.."

PROGRAM=${PROGRAM:-target/release/ghostlight}
MODEL=${MODEL:-models/default.safetensors}
IMGSZ=${IMGSZ:-320}
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
[ -x "$PROGRAM" ] || { echo "$PROGRAM is not built: cargo build --release"; exit 66; }

check() { # NAME COMMAND…
    local name=$1
    shift
    if "$@"; then echo "ok      $name"; else echo "FAILED  $name: $*"; failed=1; fi
}
failed=0

# The daemon, on the lines of [source] and MORE tables, reading standard input.
start() { # SOURCE [MORE]
    cat >"$folder/g.toml" <<X
device = "soak"
[model]
path = "$MODEL"
imgsz = $IMGSZ
threads = 1
[source]
$1
[jsonl]
path = "$folder/lines.jsonl"
${2:-}
X
    "$PROGRAM" run --config "$folder/g.toml" 2>"$folder/log" <&0 &
    pid=$!
    while [ ! -s "$folder/lines.jsonl" ]; do sleep 0.2; kill -0 $pid; done
}
resident() { awk '/^VmRSS/ { print $2 }' /proc/$pid/status; }
# The least of some counts: a picture's file is open for a moment.
descriptors() {
    for _ in {1..10}; do
        find /proc/$pid/fd -mindepth 1 2>/dev/null | wc -l
        sleep 0.02
    done | sort -n | head -n 1
}
# CPU time of a process so far, in clock ticks.
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

soak() { # MINUTES
    start $'url = "models/samples"\nloop = true\nfps = 1000' </dev/null
    sleep 30
    local first most least files
    first=$(resident) most=$first least=$first files=$(descriptors)
    echo "figure  resident after 30 s: $first kB, $files descriptors"
    local end=$((SECONDS + 60 * $1))
    while [ $SECONDS -lt $end ]; do
        sleep 5
        local now
        now=$(resident)
        most=$((now > most ? now : most)) least=$((now < least ? now : least))
        local open
        open=$(descriptors)
        [ "$open" = "$files" ] || { echo "descriptors: $open, were $files"; failed=1; }
    done
    kill -TERM $pid
    wait $pid
    check "resident memory stays within 1 MB ($least to $most kB)" test $((most - first)) -le 1024
    python3 - "$folder/lines.jsonl" <<'P' || failed=1
import json, sys

lines = [json.loads(line) for line in open(sys.argv[1])]
seqs = [line["seq"] for line in lines]
missing = seqs[-1] - seqs[0] + 1 - len(seqs)
dropped = lines[-1]["dropped_frames"] - lines[0]["dropped_frames"]
totals = sorted(line["timing_ms"]["total"] for line in lines)
at = lambda share: totals[int(share * (len(totals) - 1))]
print(f"figure  lines: {len(lines)}, missing in seq {missing}, counted as dropped {dropped}")
print(f"figure  latency ms: median {at(0.5):.2f}, p99 {at(0.99):.2f}, most {totals[-1]:.2f}")
sys.exit(seqs != sorted(set(seqs)) or missing > dropped)
P
}

# 5 frames a second of YUYV, 640x480, all the same.
raw_camera() {
    python3 -c '
import sys, time
frame = open(sys.argv[1], "rb").read()
while True:
    sys.stdout.buffer.write(frame)
    sys.stdout.buffer.flush()
    time.sleep(0.2)' "$folder/grey.yuyv" 2>/dev/null
}

idle() { # SECONDS
    # The same picture for bench: it is computed in the same rectangle, and its boxes are left out as well.
    printf 'P6 2 1 255\nrrrrrr' >"$folder/grey.ppm"
    python3 tests/vm/picture.py "$folder/grey.ppm" "$folder/grey.yuyv" "$folder/grey.bmp"
    # CPU time of a picture, without what starting takes.
    local few many
    cost() { # ITERS
        "$PROGRAM" bench --model "$MODEL" --imgsz "$IMGSZ" --threads 1 --iters "$1" \
            --picture "$folder/grey.bmp" >/dev/null &
        local bench=$! last=0 now
        while now=$(ticks $bench 2>/dev/null) && [ -n "$now" ]; do last=$now; sleep 0.005; done
        wait $bench
        echo "$last"
    }
    few=$(cost 50) many=$(cost 1050)
    start $'url = "-"\nformat = "yuyv"\nwidth = 640\nheight = 480' < <(raw_camera)
    sleep 5
    local before lines_before after lines_after
    before=$(ticks $pid) lines_before=$(wc -l <"$folder/lines.jsonl")
    sleep "$1"
    after=$(ticks $pid) lines_after=$(wc -l <"$folder/lines.jsonl")
    kill -TERM $pid
    wait $pid
    python3 - "$few" "$many" $((after - before)) "$lines_before" "$lines_after" "$(getconf CLK_TCK)" "$folder/lines.jsonl" <<'P' || failed=1
import json, statistics, sys

few, many, ticks, first, last, hertz = map(int, sys.argv[1:7])
lines = [json.loads(line) for line in open(sys.argv[7])][first:last]
alone, daemon = (many - few) / 1000 / hertz * 1e3, ticks / len(lines) / hertz * 1e3
inference = statistics.mean(line["timing_ms"]["inference"] for line in lines)
print(f"figure  CPU ms a picture in the daemon at 5 a second: {daemon:.2f} ({len(lines)} pictures)")
print(f"figure  its network: {inference:.2f} ms, ratio {daemon / inference:.2f}")
print(f"figure  by bench, where caches are warm: {alone:.2f} ms, ratio {daemon / alone:.2f}")
P
}

broker() { # SECONDS
    command -v mosquitto >/dev/null || { echo "broker: not tested: no mosquitto"; exit 0; }
    local broker before
    start $'url = "models/samples"\nloop = true\nfps = 1000' $'[mqtt]\nhost = "127.0.0.1"\nport = 18833' </dev/null
    declare -A lines=([there]=0 [frozen]=0 [absent]=0)
    for _ in 1 2 3 4; do
        for state in there frozen absent; do
            case $state in
                there) mosquitto -p 18833 >/dev/null 2>&1 & broker=$! ;;
                frozen) kill -STOP $broker ;;
                absent) kill -KILL $broker ;;
            esac
            sleep 3
            before=$(wc -l <"$folder/lines.jsonl")
            sleep "$1"
            lines[$state]=$((lines[$state] + $(wc -l <"$folder/lines.jsonl") - before))
        done
        { wait $broker || true; } 2>/dev/null
    done
    kill -TERM $pid
    wait $pid
    echo "figure  lines with a broker ${lines[there]}, with a frozen one ${lines[frozen]}, with none ${lines[absent]}"
    check "none is slower by a fifth" test $((5 * lines[frozen])) -ge $((4 * lines[there])) \
        -a $((5 * lines[absent])) -ge $((4 * lines[there]))
}

case ${1:-} in
    soak) soak "${2:-30}" ;;
    idle) idle "${2:-60}" ;;
    broker) broker "${2:-15}" ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 64 ;;
esac
exit $failed
