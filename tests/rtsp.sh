#!/usr/bin/env bash
# An RTSP camera with a password, by ffmpeg and by GStreamer: detections, the camera gone and back, a wrong password.
#
#   tests/rtsp.sh
#
# PROGRAM is the binary, default target/release/ghostlight. Without a server or a player it says so and ends well.
set -euo pipefail
cd "$(dirname "$0")/.."

PROGRAM=$(realpath "${PROGRAM:-target/release/ghostlight}")
PYTHON=${PYTHON:-/usr/bin/python3}
PORT=${PORT:-8554}
MODEL=models/parking-yolov8n-dynamicconv.safetensors
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
skip() { echo "rtsp: not tested: $1"; exit 0; }
"$PYTHON" -c 'import gi; gi.require_version("GstRtspServer", "1.0")' 2>/dev/null || skip "no server (see tests/rtsp.py)"

failed=0
check() { # NAME COMMAND…
    local name=$1
    shift
    if "$@" >/dev/null 2>&1; then echo "ok      $name"; else echo "FAILED  $name: $*"; failed=1; fi
}
wait_for() { # SECONDS COMMAND…
    local left=$(($1 * 5))
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || return 1
        sleep 0.2
    done
}
camera() {
    "$PYTHON" tests/rtsp.py "$PORT" models/samples/parking-sunny.jpg 2>/dev/null &
    camera=$!
    wait_for 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$PORT"
}
lines() { wc -l <"$folder/lines.jsonl"; }
grown() { [ "$(lines)" -gt "$1" ]; }
# daemon PASSWORD: on the camera, its password as an address has it.
daemon() {
    : >"$folder/lines.jsonl"
    PATH=$folder/players:/nowhere "$PROGRAM" run --model $MODEL --imgsz 320 --threads 1 \
        --source "rtsp://cam:$1@127.0.0.1:$PORT/live" >"$folder/lines.jsonl" 2>"$folder/log" &
    daemon=$!
}
ended() { kill -TERM $daemon; wait $daemon; }

for player in ffmpeg gst-launch-1.0; do
    command -v $player >/dev/null || { echo "$player: not tested: it is not installed"; continue; }
    rm -rf "$folder/players"
    mkdir "$folder/players"
    ln -s "$(command -v $player)" "$folder/players/"
    echo "== $player"
    camera
    daemon s%3Ae%40cret
    check "finds what the picture shows" wait_for 30 grep -q '"class":"occupied"' "$folder/lines.jsonl"
    check "goes on" wait_for 60 grown $(($(lines) + 20))
    kill -KILL $camera
    wait $camera 2>/dev/null || true
    check "tells that it is gone" wait_for 30 grep -qi 'warn\|error' "$folder/log"
    camera
    check "finds again once it is back" wait_for 60 grown "$(lines)"
    check "ends well" ended
    daemon wrong
    status=0
    wait $daemon || status=$?
    check "ends with 69 at a wrong password" test $status = 69
    check "says what to do" grep -q 'check user and password' "$folder/log"
    check "tells no password" bash -c "! grep -q 'cret\|wrong' '$folder/log'"
    [ $failed = 0 ] || cat "$folder/log"
    kill -KILL $camera
    wait $camera 2>/dev/null || true
done
[ $failed = 0 ] && echo "rtsp: passed"
exit $failed
