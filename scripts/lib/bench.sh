# shellcheck shell=bash
# What the benchmarks have in common: machines (a network namespace and state directories each), clocks and medians. Sourced by
# scripts/bench after machine.sh; not run.
# shellcheck disable=SC2034 # some of it is of use to those that source this only

[ "$(id -u)" = 0 ] || die "run it as root: timing sudo is no use"
binary=${CORACLE_BIN:-$PWD/target/release/coracle}
work=$(mktemp -d "${CORACLE_BENCH_DIR:-/tmp}/cbench.XXXXXX")
holders=()
hosts=()
at_end=()

# clean_up_by FUNCTION: also called in the end.
clean_up_by() { at_end+=("$1"); }
clean_up() {
  local host holder function
  trap - EXIT
  for host in "${hosts[@]}"; do
    mapfile -t left < <(coracle_on "$host" ps -aq 2>/dev/null)
    [ ${#left[@]} -eq 0 ] || coracle_on "$host" rm -f "${left[@]}" >/dev/null 2>&1 || true
    coracle_on "$host" system down >/dev/null 2>&1 || true
  done
  for function in "${at_end[@]}"; do "$function" || true; done
  for holder in "${holders[@]}"; do kill "$holder" 2>/dev/null || true; done
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

build() { [ -n "${CORACLE_BIN:-}" ] || cargo build --release --quiet --package coracle; }

declare -A holder_of=()
# new_host NAME: a network namespace with loopback up.
new_host() {
  unshare --net sleep infinity &
  holder_of[$1]=$!
  holders+=("$!")
  until [ "$(readlink "/proc/${holder_of[$1]}/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
  hosts+=("$1")
  on "$1" ip link set lo up
}
# on HOST COMMAND...
on() { nsenter --net="/proc/${holder_of[$1]}/ns/net" "${@:2}"; }
# coracle_on HOST WORD...; the backend is $CORACLE_FIREWALL.
coracle_on() { on "$1" "$binary" --root "$work/$1/root" --run-root "$work/$1/run" "${@:2}"; }

rootfs=$work/rootfs
make_rootfs() {
  mkdir -p "$rootfs/bin" "$rootfs/tmp"
  cp "$(command -v busybox)" "$rootfs/bin/busybox"
  for applet in true sh sleep yes head printf; do ln -s busybox "$rootfs/bin/$applet"; done
  tar -C "$rootfs" -cf "$work/busybox.tar" .
}
# import_on HOST: the image busybox.
import_on() {
  [ -e "$work/busybox.tar" ] || make_rootfs
  coracle_on "$1" import "$work/busybox.tar" busybox >/dev/null
}

# docker_up: Docker to compare with, in a network namespace of its own, with the image busybox.
docker_up() {
  oracle=${CORACLE_SHARED:-$PWD/../shared}/oracle/docker-oracle
  [ -x "$oracle" ] || die "the engine to compare with is missing: $oracle"
  if ! command -v dockerd >/dev/null && [ -d /run/systemd/system ]; then
    die "Docker is missing, and installing it would start its service on this machine: install docker.io yourself if you want that"
  fi
  export ORACLE_DIR=$work/docker ORACLE_NETNS=cbench-$$
  clean_up_by docker_down
  "$oracle" up >/dev/null
  [ -e "$work/busybox.tar" ] || make_rootfs
  "$oracle" image busybox "$rootfs" >/dev/null
}
docker_down() { "$oracle" down >/dev/null 2>&1; }
# docker_on WORD...
docker_on() { nsenter --net="/run/netns/$ORACLE_NETNS" docker -H "unix://$ORACLE_DIR/docker.sock" "$@"; }

# Waits until the CPUs are idle for a moment, for $patience quarters of a second at most. What one command leaves to the kernel (a network
# namespace goes in the background, under a lock that all need) is not the next one's to wait for; nor is other work on the machine, if
# it can be helped.
waits=waits
patience=40
unsettled=0
settle() {
  local idle before after try
  [ "$waits" != at-once ] || return 0
  for ((try = 0; try < patience; try++)); do
    read -r _ before < <(sed -n 1p /proc/stat)
    sleep 0.25
    read -r _ after < <(sed -n 1p /proc/stat)
    idle=$(awk -v a="$before" -v b="$after" 'BEGIN { n = split(a, x); split(b, y); for (i = 1; i <= n; i++) all += y[i] - x[i]; print int(100 * (y[4] - x[4]) / (all ? all : 1)) }')
    [ "$idle" -lt 80 ] || return 0
  done
  unsettled=$((unsettled + 1))
}
declare -A times=()
# timed SERIES COMMAND...: adds the time of the command to a series; an engine that fails would be fast.
timed() {
  local series=$1 start end
  settle
  start=${EPOCHREALTIME/[.,]/}
  "${@:2}" >"$work/out" 2>&1 || { cat "$work/out" >&2; die "it failed, so there is nothing to time: ${*:2}"; }
  end=${EPOCHREALTIME/[.,]/}
  times[$series]+="$((end - start)) "
}
# spread NUMBERS [UNIT]: their median, least and greatest, in units of so many.
spread() {
  tr ' ' '\n' <<<"$1" | sed '/^$/d' | sort -n |
    awk -v unit="${2:-1}" '{ t[NR] = $1 / unit } END { m = int((NR + 1) / 2); n = int(NR / 2) + 1; printf "%.2f %.2f %.2f", (t[m] + t[n]) / 2, t[1], t[NR] }'
}
# figures SERIES: median, least and greatest, in milliseconds.
figures() { spread "${times[$1]}" 1000 | awk '{ printf "%.1f %.1f %.1f", $1, $2, $3 }'; }
# row LABEL SERIES
row() {
  local median least most
  read -r median least most < <(figures "$2"; echo)
  echo "| $1 | $median | $least | $most |"
}
# ratio SERIES SERIES: of their medians.
ratio() { awk -v a="$(figures "$1")" -v b="$(figures "$2")" 'BEGIN { split(a, x); split(b, y); printf "%.2f", x[1] / y[1] }'; }
load() {
  echo
  echo "Load of the machine: $(cut -d ' ' -f 1-3 /proc/loadavg), $(nproc) CPUs. Runs before which it was busy with something else all the while that was waited: $unsettled."
}
