# The main path: camera, lines, MQTT, systemd, as docs/run.md installs it.
install_service
play_picture
listen
check "starts under its own unit" systemctl start ghostlight
check "writes lines" wait_for 120 test -s "$LINES"
goes_on "goes on writing" 3

found=$(tail -n 1 "$LINES" | classes)
wanted=$(classes </host/wanted.jsonl)
figure "objects found" "$found"
figure "objects in the picture" "$wanted"
check "finds the right objects" sh /host/near.sh "$found" "$wanted"
check "publishes lines" wait_for 30 grep -q '^ghostlight/yard/detections {"schema":"ghostlight.detections/1"' /run/messages
check "is available" is_online
retained ghostlight/yard/state >/run/state
check "publishes its state" grep -q '"schema":"ghostlight.state/1".*"counts":.*"presence":' /run/state
figure state "$(cut -c 1-150 /run/state)"
retained homeassistant/device/ghostlight_yard/config >/run/discovery
for key in '"dev":\|"device":' '"o":\|"origin":' '"cmps":\|"components":' 'availability' 'unique_id\|uniq_id'; do
    check "discovery has $key" grep -q "$key" /run/discovery
done
check "status shows the rate" sh -c 'systemctl status ghostlight --no-pager | grep -q "Status:.*fps"'
figure status "$(systemctl show -p StatusText --value ghostlight)"
figure exposure "$(systemd-analyze security ghostlight --no-pager 2>/dev/null | tail -n 1)"
check "runs without root" test "$(stat -c %u "/proc/$(pid)")" != 0
figure "resident kB" "$(resident_kb)"
figure log "$(log | head -n 4 | tr '\n' '|' | cut -c 1-400)"

stop_in_time
check "ends well" test "$(systemctl show -p ExecMainStatus --value ghostlight)" = 0
check "is offline then" test "$(retained ghostlight/yard/availability)" = offline
