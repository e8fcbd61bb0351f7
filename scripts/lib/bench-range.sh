# shellcheck shell=bash disable=SC2034,SC2154,SC2016 # variables of bench.sh; Markdown in quotes
# What does a run of 63,977 ports cost against one port? Sourced by scripts/bench with: ROUNDS.

rounds=${1:-15}
patience=12
build
for backend in iptables nftables; do
  new_host "$backend"
  import_on "$backend"
done
request_of() { CORACLE_FIREWALL=$1 coracle_on "$1" run --rm -p "$2" busybox true; }
one=8080:80 range=1024-65000:1024-65000
for backend in iptables nftables; do
  for ports in $one $range $one $range; do timed warm request_of "$backend" "$ports"; done
done
for ((round = 0; round < rounds; round++)); do
  for backend in iptables nftables; do
    timed "$backend-one" request_of "$backend" "$one"
    timed "$backend-range" request_of "$backend" "$range"
  done
done
echo
echo "\`run --rm -p PORTS busybox true\`, $rounds rounds, taking turns, medians in ms:"
echo
echo "| | \`$one\` | \`$range\` | ratio |"
echo "|---|---:|---:|---:|"
for backend in iptables nftables; do
  echo "| $backend | $(figures "$backend-one" | cut -d ' ' -f 1) | $(figures "$backend-range" | cut -d ' ' -f 1) | $(ratio "$backend-range" "$backend-one") |"
done
load
