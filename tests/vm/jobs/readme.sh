# The README's way onto a board.
cp /host/*.deb /root/
cd /root
play_picture
listen
follow readme
check "is enabled" systemctl is-enabled ghostlight
check "publishes" wait_for 180 heard
figure published "$(grep -a -m 1 /detections /run/messages | cut -c 1-300)"
figure status "$(systemctl show -p StatusText --value ghostlight)"
