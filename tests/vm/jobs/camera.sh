# A camera's faults: each is survived by the same process, without a descriptor more.
install_service
sed -i '/^\[mqtt\]/,$d' $CONFIG
play_picture
set_control() { v4l2-ctl -d /dev/video0 --set-ctrl "$1"; }
recovers() {
    mark
    check "$1: writes lines" wait_for 150 more_lines 2
    check "$1: same process" test "$(pid)" = "$first"
    check "$1: no descriptor more" test "$(descriptors)" -le "$open"
}

check "starts" systemctl start ghostlight
mark
check "writes lines" wait_for 150 more_lines 2
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
echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind
sleep 5
check "unplugged: tells so" wait_for 6 tells "went away\|no such device"
check "unplugged: lives" test "$(pid)" = "$first"
echo vivid.0 >/sys/bus/platform/drivers/vivid/bind
sleep 2
recovers "plugged in"
moment "ENODEV while its node stays"
set_control disconnect=1
sleep 3
check "disconnected: lives" test "$(pid)" = "$first"
echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind
sleep 1
echo vivid.0 >/sys/bus/platform/drivers/vivid/bind
sleep 2
recovers "connected again"
moment "absent at the start"
systemctl stop ghostlight
echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind
check "starts without a camera" systemctl start ghostlight
first=$(pid) open=$((open + 1))
figure status "$(systemctl show -p StatusText --value ghostlight)"
echo vivid.0 >/sys/bus/platform/drivers/vivid/bind
sleep 2
recovers "came later"
figure log "$(log | grep -c .) lines"
