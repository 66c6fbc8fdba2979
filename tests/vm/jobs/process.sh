# What happens to the process: killed, stopped, reloaded, its files replaced, its disk full.
install_service
# A machine that is emulated needs longer for a picture than a board.
mkdir -p /etc/systemd/system/ghostlight.service.d
printf '[Service]\nWatchdogSec=20\n' >/etc/systemd/system/ghostlight.service.d/sooner.conf
systemctl daemon-reload
play_picture
mosquitto_sub -t 'ghostlight/yard/availability' >/run/availability 2>&1 &
check "starts" systemctl start ghostlight
check "writes lines" wait_for 120 test -s "$LINES"

moment kill -9
first=$(pid)
kill -9 "$first"
restarted() { is_active && [ "$(pid)" != "$first" ] && [ "$(pid)" != 0 ]; }
check "is offline by its will" wait_for 10 grep -q offline /run/availability
check "is started again" wait_for 60 restarted
goes_on "writes lines again" 2
check "is online again" wait_for 30 sh -c 'tail -n 1 /run/availability | grep -q online'

moment SIGSTOP
first=$(pid)
kill -STOP "$first"
check "the watchdog starts it again" wait_for 120 restarted
goes_on "writes lines again" 2

moment "SIGHUP with a broken configuration"
first=$(pid)
cp $CONFIG /run/good
sed -i 's/^device = .*/devise = "yard"/' $CONFIG
systemctl reload ghostlight
check "tells the key and the line" wait_for 6 tells "ghostlight.toml:1: devise"
goes_on "keeps the old one" 2
check "keeps its process" is_process "$first"

moment "the same at the start"
systemctl stop ghostlight
systemctl start ghostlight
check "ends with 78" test "$(systemctl show -p ExecMainStatus --value ghostlight)" = 78
sleep 5
check "stays ended" test "$(systemctl is-active ghostlight)" = failed
cp /run/good $CONFIG

moment "the model replaced and cut short"
systemctl reset-failed ghostlight
check "starts" systemctl start ghostlight
goes_on "writes lines" 1
first=$(pid)
model=/usr/share/ghostlight/models/default.safetensors
cp $model /run/model
: >$model
goes_on "goes on with an empty model file" 2
systemctl reload ghostlight
check "tells that the model is broken" wait_for 6 tells "default.safetensors: file has 0 bytes"
goes_on "keeps the old model" 2
check "keeps its process" is_process "$first"
cp /run/model $model

moment "a full disk"
systemctl stop ghostlight
mkdir -p /run/small
mount -t tmpfs -o size=64k,mode=1777 none /run/small
sed -i 's#^path = .*#path = "/run/small/lines.jsonl"#' $CONFIG
printf '[Service]\nReadWritePaths=/run/small\n' >/etc/systemd/system/ghostlight.service.d/small.conf
systemctl daemon-reload
dd if=/dev/zero of=/run/small/fill bs=1k count=63 2>/dev/null
systemctl start ghostlight
first=$(pid)
check "tells that the disk is full" wait_for 12 tells "no space left\|disk is full"
check "goes on publishing" published
rm /run/small/fill
check "writes when there is room" wait_for 120 test -s /run/small/lines.jsonl
check "each line is whole" sh -c 'grep -q "^{" /run/small/lines.jsonl && ! grep -v "^{.*}$" /run/small/lines.jsonl | grep -q .'
check "keeps its process" is_process "$first"

stop_in_time
