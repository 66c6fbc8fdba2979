# Helpers of the jobs, for dash. Each line that `check` and `figure` print is one of the report.

# check NAME COMMAND...: whether the command succeeds.
check() {
    name=$1
    shift
    if "$@" >/dev/null 2>&1; then echo "ok      $name"; else
        echo "FAILED  $name: $*"
        touch /run/failed
    fi
}

# figure NAME VALUE
figure() { echo "figure  $1: $2"; }

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    left=$(($1 * 5))
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || return 1
        sleep 0.2
    done
}

LINES=/var/lib/ghostlight/lines.jsonl
CONFIG=/etc/ghostlight/ghostlight.toml

lines() { wc -l <"$LINES"; }
# more_lines COUNT: whether there are that many more than `mark` noted.
mark() { before=$(lines); }
more_lines() { [ "$(lines)" -ge $((before + $1)) ]; }
# rate SECONDS: lines in that time.
rate() {
    mark
    sleep "$1"
    echo $(($(lines) - before))
}
# goes_on NAME COUNT: whether that many lines follow.
goes_on() {
    mark
    check "$1" wait_for 120 more_lines "$2"
}
# Counts of the classes in lines of detections: 4 "class":"empty" 12 "class":"occupied"
classes() { grep -o '"class":"[a-z]*"' | sort | uniq -c | tr -s ' \n' ' '; }

pid() { systemctl show -p MainPID --value ghostlight; }
descriptors() { find "/proc/$(pid)/fd" -mindepth 1 | wc -l; }
resident_kb() { awk '/^VmRSS/ { print $2 }' "/proc/$(pid)/status"; }
is_active() { [ "$(systemctl is-active ghostlight)" = active ]; }
is_process() { [ "$(pid)" = "$1" ]; }
retained() { mosquitto_sub -t "$1" -C 1 -W 5; }
is_online() { [ "$(retained ghostlight/yard/availability)" = online ]; }
published() { mosquitto_sub -t ghostlight/yard/detections -C 2 -W 60; }
# listen: notes all that is published; heard: whether a line of detections was.
listen() { mosquitto_sub -t '#' -v >/run/messages 2>&1 & }
heard() { grep -q '^ghostlight/[^/]*/detections {"schema":"ghostlight.detections/1"' /run/messages; }
log() { journalctl -u ghostlight -o cat --no-pager; }
# tells PATTERN: whether the last words in the journal have it. A look takes a second of emulation.
tells() { journalctl -u ghostlight -o cat --no-pager -n 12 | grep -qi "$1"; }
# moment NAME: so that faults of one step are told from those of the next.
moment() { echo "#       $* at $(cut -d' ' -f1 /proc/uptime) s"; }

# when WORD: in ms, when the service manager last said it of the service. `systemctl` itself may take a second of emulation.
when() {
    journalctl -u ghostlight -o short-monotonic --no-pager -n 30 |
        sed -n "s/^\[ *\([0-9]*\)\.\([0-9]\{3\}\).* systemd\[1\]: .*$1.*/\1\2/p" | tail -n 1
}

# The contract: no more than 2 s from the signal to the end, and what was to be done is done.
stop_in_time() {
    moment stopping
    systemctl stop ghostlight
    journalctl --sync
    took=$(($(when Stopped) - $(when Stopping)))
    figure "ms to stop" "$took"
    check "stops within 2 s" test "$took" -gt 0 -a "$took" -lt 2000
}

# As docs/run.md says.
install_service() {
    install -m 755 /host/ghostlight /usr/bin/
    install -m 644 /host/ghostlight.service /host/ghostlight@.service /etc/systemd/system/
    install -D -m 644 /host/default.safetensors /usr/share/ghostlight/models/default.safetensors
    mkdir -p /etc/ghostlight
    cat >"$CONFIG" <<X
device = "yard"
[model]
imgsz = 320
[source]
device = "/dev/video0"
format = "yuyv"
width = 640
height = 480
[jsonl]
path = "/var/lib/ghostlight/lines.jsonl"
[mqtt]
enabled = true
host = "127.0.0.1"
keep_alive = 5
X
    systemctl daemon-reload
}

# The picture /host/f.yuyv (raw 640x480) comes from the camera again and again.
play_picture() {
    v4l2-ctl -d /dev/video0 -i 1
    v4l2-ctl -d /dev/video1 -o 0
    v4l2-ctl -d /dev/video1 --set-dv-bt-timings index=0
    v4l2-ctl -d /dev/video0 --set-dv-bt-timings index=0
    v4l2-ctl -d /dev/video1 --set-fmt-video-out=width=640,height=480,pixelformat=YUYV
    v4l2-ctl -d /dev/video0 --set-fmt-video=width=640,height=480,pixelformat=YUYV
    v4l2-ctl -d /dev/video0 --set-ctrl loop_video=1,osd_text_mode=2
    v4l2-ctl -d /dev/video1 --stream-out-mmap=4 --stream-loop --stream-from=/host/f.yuyv >/dev/null 2>&1 &
}

# follow JOB: runs the lines that the documentation marks for this job, one by one, as their reader would. The
# reader is root here, so sudo needs to be no more than a word.
follow() {
    command -v sudo >/dev/null || { printf '#!/bin/sh\nexec "$@"\n' >/run/sudo && install -m 755 /run/sudo /usr/local/bin/sudo; }
    check "$1 has lines to follow" test -s "/host/docs/$1"
    while read -r line; do
        case $line in
            # These have no end of their own: they must still be there when they are ended.
            "ghostlight run --source "* | "mosquitto_sub "*" -v") endless "$line" ;;
            *) check "\$ $line" sh -c "$line" </dev/null ;;
        esac
    done <"/host/docs/$1"
}

# endless LINE: whether it gives lines, and ends well when it is told to.
endless() {
    sh -c "exec $1" </dev/null >/run/endless 2>&1 &
    check "\$ $1" wait_for 60 grep -q '"schema":"ghostlight\|^ghostlight/' /run/endless
    kill $!
    wait $! || touch /run/failed
}

# All files that are named as ours, but for the journal's and what was brought here to be installed.
inventory() {
    find / -xdev -iname '*ghostlight*' ! -path '/proc/*' ! -path '/sys/*' ! -path '/run/*' ! -path '/host/*' ! -path '/root/*' \
        ! -path '/var/log/*' ! -path '/tmp/*' | sort
}
