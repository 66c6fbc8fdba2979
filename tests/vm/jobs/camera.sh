# A camera's faults: each is survived by the same process, without a descriptor more.
install_service
sed -i '/^\[mqtt\]/,$d' $CONFIG
play_picture
set_control() { v4l2-ctl -d /dev/video0 --set-ctrl "$1"; }
unplug() { echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind; }
plug_in() {
    echo vivid.0 >/sys/bus/platform/drivers/vivid/bind
    sleep 2
}
recovers() {
    goes_on "$1: writes lines" 2
    check "$1: same process" is_process "$first"
    check "$1: no descriptor more" test "$(descriptors)" -le "$open"
}

check "starts" systemctl start ghostlight
check "writes lines" wait_for 150 test -s "$LINES"
goes_on "goes on writing" 2
first=$(pid) open=$(descriptors)
figure descriptors "$open"

moment "buffers with the ERROR flag"
for _ in 1 2 3; do set_control inject_v4l2_buf_flag_error=1; sleep 1; done
recovers "error flag"
moment "no buffer at all for 15 s"
set_control percentage_of_dropped_buffers=100
sleep 15
set_control percentage_of_dropped_buffers=0
recovers "silence"
moment "EINVAL at VIDIOC_QBUF"
set_control inject_vidioc_qbuf_error=1
recovers "qbuf"
moment "EIO, then EINVAL at VIDIOC_STREAMON"
set_control inject_vidioc_streamon_error=1
set_control inject_fatal_streaming_error=1
recovers "fatal error"
moment "unplugged and plugged in"
unplug
sleep 5
check "unplugged: tells so" wait_for 6 tells "went away\|no such device"
check "unplugged: lives" is_process "$first"
plug_in
recovers "plugged in"
moment "ENODEV while its node stays"
set_control disconnect=1
sleep 3
check "disconnected: lives" is_process "$first"
unplug
sleep 1
plug_in
recovers "connected again"
moment "absent at the start"
systemctl stop ghostlight
unplug
check "starts without a camera" systemctl start ghostlight
first=$(pid)
figure status "$(systemctl show -p StatusText --value ghostlight)"
plug_in
recovers "came later"
moment "back under another number, found by its name"
sed -i 's|^device = "/dev/video0"|device = "vivid"|' $CONFIG
systemctl reload ghostlight
goes_on "by its name: writes lines" 2
open=$(descriptors)
exec 9</dev/video0 # keeps the number
unplug
sleep 2
plug_in
check "another number: the old one is gone" test ! -e /dev/video0
recovers "another number"
exec 9<&-
moment "no permission at first"
unplug
echo 'SUBSYSTEM=="video4linux", MODE="0000"' >/etc/udev/rules.d/99-denied.rules
udevadm control --reload
plug_in
check "denied: tells so" wait_for 15 tells "permission"
check "denied: lives" is_process "$first"
chmod 660 /dev/video*
recovers "permitted"
figure log "$(log | grep -c .) lines"
