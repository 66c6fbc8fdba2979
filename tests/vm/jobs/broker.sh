# A broker's faults: pictures go on, what is retained is right afterwards, memory stays bounded.
install_service
play_picture
systemctl stop mosquitto
check "starts without a broker" systemctl start ghostlight
check "writes lines" wait_for 120 test -s "$LINES"
first=$(pid)

right_again() {
    check "$1: is online" wait_for 90 is_online
    check "$1: publishes" published
    check "$1: its state is kept" retained ghostlight/yard/state
    check "$1: same process" is_process "$first"
}

moment "the broker comes"
alone=$(rate 30)
systemctl start mosquitto
right_again "came later"
memory=$(resident_kb)
together=$(rate 30)
figure "lines in 30 s without and with a broker" "$alone, $together"

moment "stopped for 60 s"
systemctl stop mosquitto
gone=$(rate 60)
figure "lines in 60 s while it is stopped" "$gone"
check "pictures go on" test "$gone" -ge "$together"
systemctl start mosquitto
right_again "stopped"

moment "killed while publishing"
systemctl kill -s KILL mosquitto
sleep 2
systemctl reset-failed mosquitto
systemctl start mosquitto
right_again "killed"

moment "frozen for 30 s"
systemctl kill -s STOP mosquitto
frozen=$(rate 30)
figure "lines in 30 s while it is frozen" "$frozen"
check "pictures go on" test "$frozen" -ge $((together / 2))
systemctl kill -s CONT mosquitto
right_again "frozen"
figure "resident kB before and after" "$memory, $(resident_kb)"
check "memory stays" test "$(resident_kb)" -lt $((memory + 2048))

moment "a wrong password"
systemctl stop ghostlight
echo secret >/etc/ghostlight/mqtt-password
printf 'username = "yard"\npassword_file = "/etc/ghostlight/mqtt-password"\n' >>$CONFIG
chmod 644 /etc/ghostlight/mqtt-password
mosquitto_passwd -b -c /etc/mosquitto/passwd yard another
chown mosquitto /etc/mosquitto/passwd
printf 'listener 1883 127.0.0.1\nallow_anonymous false\npassword_file /etc/mosquitto/passwd\n' \
    >/etc/mosquitto/conf.d/password.conf
systemctl restart mosquitto
systemctl start ghostlight
first=$(pid)
check "tells that it is refused" wait_for 12 tells "refuses this user and password"
goes_on "pictures go on" 2
check "same process" is_process "$first"
