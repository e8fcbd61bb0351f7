# shellcheck shell=bash disable=SC2034,SC2154 # variables of bench.sh
# `run --rm -p 8080:80 busybox true`, here and with Docker 20.10. Sourced by scripts/bench with: ROUNDS.

rounds=${1:-20}
build
new_host coracle
import_on coracle
docker_up

request=(run --rm -p 8080:80 busybox true)
run_coracle() { coracle_on coracle "${request[@]}"; }
run_docker() { docker_on "${request[@]}"; }
# Both are warm.
for engine in coracle docker; do timed warm "run_$engine" && timed warm "run_$engine"; done
unsettled=0
for ((round = 0; round < rounds; round++)); do
  for engine in coracle docker; do timed "$engine" "run_$engine"; done
done

echo
echo "\`${request[*]}\`, $rounds rounds, taking turns:"
echo
echo "| engine | median ms | least | greatest |"
echo "|---|---:|---:|---:|"
row coracle coracle
row "Docker $(docker_on version --format '{{.Server.Version}}')" docker
awk -v a="$(figures coracle)" -v b="$(figures docker)" 'BEGIN { split(a, x); split(b, y); printf "| ratio | %.3f (1/%.1f) | | |\n", x[1] / y[1], y[1] / x[1] }'
load

# --- what it costs beside time

trace=$work/trace
on coracle strace -f -qq -e trace=execve -o "$trace" "$binary" --root "$work/coracle/root" --run-root "$work/coracle/run" "${request[@]}" >/dev/null 2>&1 || true
count() { grep -c "execve(\"[^\"]*$1.* = 0\$" "$trace" || true; }

# Several containers: of one alone, the pages of the program that all monitors share would count as its own.
containers=5
# memory NETWORK LINE: the median, over the monitors of containers there, of the sum of some lines of smaps_rollup.
declare -A monitors_on=()
start_on() {
  local network=$1 number id
  for ((number = 1; number <= containers; number++)); do
    id=$(coracle_on coracle run -d --network "$network" -p ":80" busybox sleep 1000)
    monitors_on[$network]+=" $(pgrep -f "monitor.*$id|$id.*monitor" | tr '\n' ' ')"
  done
}
memory() {
  local pid
  for pid in ${monitors_on[$1]}; do awk -v name="$2" '$1 ~ name { kb += $2 } END { print kb }' "/proc/$pid/smaps_rollup"; done | sort -n | sed -n "$((containers / 2 + 1))p"
}
coracle_on coracle network create bench >/dev/null
start_on bridge
start_on bench
private='^Private_(Clean|Dirty):'
echo
echo "| one container, of $((2 * containers)) that run | default network | user network, with DNS |"
echo "|---|---:|---:|"
echo "| programs executed by \`run --rm -p\`, itself and the container's included | $(count '') | |"
echo "| of these, iptables-restore (one to publish, one to take back) | $(count iptables-restore) | |"
echo "| of these, other iptables programs | $(($(count iptables) - $(count iptables-restore))) | |"
echo "| processes of ours for each container (beside its own) | $(wc -w <<<"${monitors_on[bridge]}" | awk -v c=$containers '{ print $1 / c }') | $(wc -w <<<"${monitors_on[bench]}" | awk -v c=$containers '{ print $1 / c }') |"
echo "| private memory of its monitor (Private_Clean and Private_Dirty), kB | $(memory bridge "$private") | $(memory bench "$private") |"
echo "| proportional memory of its monitor (Pss), kB | $(memory bridge '^Pss:') | $(memory bench '^Pss:') |"
