# A broker a hundred times slower than ours: what is lost is counted, to the line, as seen from outside.
install_service
play_picture
cat >>"$CONFIG" <<X
qos = 1
outbox = 8
[metrics]
listen = "127.0.0.1:9477"
X
mosquitto_sub -t ghostlight/yard/detections -q 1 >/run/received &
check "starts" systemctl start ghostlight
first=$(pid)
goes_on "writes lines" 5
quick=$(rate 30)
memory=$(resident_kb)

moment "it runs for a hundredth of the time"
for _ in 1 2 3; do
    systemctl kill -s STOP mosquitto
    sleep 20
    systemctl kill -s CONT mosquitto
    sleep 0.2
done &
slow=$(rate 60)
wait $!
figure "lines in 30 s before, in 60 s then" "$quick, $slow"
# An emulated machine's own rate varies by a tenth and more.
check "pictures go on" test "$slow" -ge $((2 * quick * 3 / 4))
check "same process" is_process "$first"
figure "resident kB before and after" "$memory, $(resident_kb)"
check "memory stays" test "$(resident_kb)" -lt $((memory + 1024))

moment "no more pictures"
sed -i 's|^device = "/dev/video0"|device = "/dev/video9"|' "$CONFIG"
systemctl reload ghostlight
sleep 20
# The machine has no curl.
metrics() { bash -c 'exec 3<>/dev/tcp/127.0.0.1/9477; printf "GET /metrics HTTP/1.1\r\n\r\n" >&3; cat <&3'; }
value() { metrics | sed -n "s/^ghostlight_mqtt_$1 //p"; }
lost=$(($(value 'messages_total{outcome="dropped"}') + $(value 'messages_total{outcome="refused"}')))
lost=$((lost + $(value 'messages_total{outcome="unconfirmed"}')))
waiting=$(($(value queued) + $(value in_flight)))
accepted=$(value accepted_total)
received=$(grep -o '"seq":[0-9]*' /run/received | sort -u | wc -l)
figure "accepted, lost, waiting, received" "$accepted, $lost, $waiting, $received"
check "something was lost" test "$lost" -gt 0
check "nothing waits" test "$waiting" = 0
check "each line was received or counted as lost" test "$received" = $((accepted - lost))
check "is online" is_online
