# near.sh FOUND WANTED: whether each class's count ("12 \"class\":\"empty\" ...") is within a tenth and one.
for class in empty occupied; do
    count() { printf '%s' "$1" | grep -o "[0-9]* \"class\":\"$class\"" | cut -d' ' -f1; }
    found=$(count "$1") wanted=$(count "$2")
    difference=$((${found:-0} - ${wanted:-0}))
    [ "${difference#-}" -le $((${wanted:-0} / 10 + 1)) ] || exit 1
done
