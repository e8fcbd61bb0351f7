# shellcheck shell=bash disable=SC2034,SC2154,SC2016 # variables of bench.sh; Markdown in quotes
# An image of five layers, pulled into a fresh root by coracle, podman, Docker and containerd, and the floor: what inflating, hashing and
# writing the same blobs takes. Sourced by scripts/bench with: ROUNDS.
#
# The image is made of Debian's packages and served by docker-registry on the loopback of a network namespace, in which all of them pull.
# Each run has a new file system (ext4) for itself, on one file in $CORACLE_BENCH_DIR (/tmp), written around the host's page cache: what an
# engine leaves behind, in the cache, in the journal or among the inodes (without a journal ext4 spares those deleted in the last minutes,
# and looks at each of them), is not the next one's to bear.

rounds=${1:-5}
disk_mb=4096
install_packages skopeo umoci podman debootstrap time coreutils e2fsprogs mount
install_asleep docker.io containerd
unpack_program docker-registry docker-registry "$PWD/target/test-tools"
case $(stat -f -c %T "$work") in
  tmpfs | ramfs | overlayfs) die "$work is on $(stat -f -c %T "$work"): name a folder on a disk by CORACLE_BENCH_DIR" ;;
esac
[ "$(df --output=avail -B 1M "$work" | tail -n 1)" -ge $((disk_mb + 1024)) ] || die "$work has too little space: $((disk_mb + 1024)) MB are needed"
build
floor=${CORACLE_FLOOR:-$PWD/target/release/examples/floor}
[ -n "${CORACLE_FLOOR:-}" ] || cargo build --release --quiet --package coracle-image --example floor

# --- the image

# Each line is a layer; `minbase` is debootstrap's.
layers=(
  minbase
  'golang-1.19-src perl-modules-5.36 python3-sympy'
  openjdk-17-jre-headless
  'libllvm14 libclang-cpp14'
  'gcc-12 cpp-12 g++-12 libicu72 libpython3.11-stdlib vim-runtime'
)
suite=bookworm
# The newest time of a file in it, so that the time of building is none.
newest=@1700000000
name=127.0.0.1:5000/bench:1

# tree_of FOLDER WORD...: the files of a layer.
tree_of() {
  local folder=$1 debs=$work/debs
  shift
  if [ "$*" = minbase ]; then
    local mirror
    mirror=$(apt-get indextargets --format '$(SITE)' "Created-By: Packages" | head -n 1)
    debootstrap --variant=minbase "$suite" "$folder" "$mirror" >"$work/out" 2>&1 || { tail -n 30 "$work/out" >&2; die "debootstrap failed"; }
    (cd "$folder" && rm -rf var/cache/apt/*.bin var/cache/apt/archives/*.deb var/lib/apt/lists/* var/log/* ./dev/*)
    return
  fi
  mkdir -p "$debs" "$folder"
  (cd "$debs" && apt-get download -qq "$@" 2>"$work/out") || { cat "$work/out" >&2; die "apt-get has no $* (the image is made of Debian 12's packages)"; }
  for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$folder"; done
  rm -rf "$debs"
}

# make_image FOLDER: `registry`, the registry's files, and `layers`: a line each with digest, diff ID, bytes of both and entries.
make_image() {
  local layout=$work/layout number=0 tar packages
  mkdir -p "$1"
  umoci init --layout "$layout"
  umoci new --image "$layout:1"
  : >"$work/plain"
  for packages in "${layers[@]}"; do
    number=$((number + 1)) tar=$work/layer.tar
    say "layer $number: $packages" >&2
    # shellcheck disable=SC2086 # words
    tree_of "$work/tree" $packages
    tar --sort=name --numeric-owner --clamp-mtime --mtime="$newest" -C "$work/tree" -cf "$tar" .
    echo "sha256:$(sha256sum <"$tar" | cut -d ' ' -f 1) $(stat -c %s "$tar") $(tar -tf "$tar" | wc -l)" >>"$work/plain"
    umoci raw add-layer --image "$layout:1" "$tar"
    rm -rf "$work/tree" "$tar"
  done
  serve "$1/registry"
  on pull skopeo --insecure-policy copy --quiet --preserve-digests --dest-tls-verify=false "oci:$layout:1" "docker://$name"
  stop_serving
  on_layers() { skopeo inspect --raw "oci:$layout:1" | grep -oE '"digest":"sha256:[0-9a-f]+","size":[0-9]+' | sed -E '1d; s/"digest":"//; s/","size":/ /'; }
  paste -d ' ' <(on_layers) "$work/plain" >"$1/layers"
  rm -rf "$layout"
}

# serve FOLDER: the registry's process is $registry_pid.
serve() {
  printf 'version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: 127.0.0.1:5000\n' "$1" >"$work/registry.yml"
  # Not by `on`: the process must be the registry's own.
  OTEL_TRACES_EXPORTER=none nsenter --net="$net" docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
  registry_pid=$!
  holders+=("$registry_pid")
  local try
  for ((try = 0; try < 100; try++)); do
    ! on pull bash -c 'exec 3<>/dev/tcp/127.0.0.1/5000' 2>/dev/null || return 0
    sleep 0.1
  done
  cat "$work/registry.log" >&2
  die "the registry does not answer"
}
# ended PID: kills a child and forgets it, for its number may be another's later.
ended() {
  kill "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
  local holder left=()
  for holder in "${holders[@]}"; do [ "$holder" = "$1" ] || left+=("$holder"); done
  holders=("${left[@]}")
}
stop_serving() { ended "$registry_pid"; }

new_host pull
net=/proc/${holder_of[pull]}/ns/net
key=$(printf '%s\n' "${layers[@]}" "$suite" "$newest" | sha256sum | cut -c 1-12)
image=$PWD/target/bench-cache/pull-$key
if [ ! -e "$image" ]; then
  rm -rf "$image.part"
  make_image "$image.part"
  mv "$image.part" "$image"
fi
serve "$image/registry"
mapfile -t blobs < <(cut -d ' ' -f 1 "$image/layers" | sed -E "s,sha256:((..).*),$image/registry/docker/registry/v2/blobs/sha256/\2/\1/data,")

# --- one engine each: start_NAME, pull_NAME, end_NAME; the root is $root

declare -A cpu=() rss=()
# measured FILE COMMAND...: user and system time of the command and its children, and the largest of them, go to a file.
measured() { /usr/bin/time -o "$1" -f '%U %S %M' "${@:2}"; }
pull_coracle() { measured "$work/usage" nsenter --net="$net" "$binary" --root "$root/root" --run-root "$root/run" pull "$name"; }
pull_podman() {
  measured "$work/usage" nsenter --net="$net" podman --root "$root/root" --runroot "$root/run" --tmpdir "$root/tmp" --storage-driver overlay \
    pull --quiet --tls-verify=false "$name"
}
pull_skopeo() { measured "$work/usage" nsenter --net="$net" skopeo --insecure-policy copy --quiet --src-tls-verify=false "docker://$name" "dir:$root/dir"; }
pull_floor() { measured "$work/usage" "$floor" "$root" "${blobs[@]}"; }
pull_floor_synced() { measured "$work/usage" "$floor" --sync "$root" "${blobs[@]}"; }

# Daemons: their mounts are their own, and the network is the one that is there.
daemon=
# start_daemon SOCKET COMMAND...
start_daemon() {
  local socket=$1 try
  shift
  nsenter --net="$net" unshare --mount --propagation private "$@" >"$root/log" 2>&1 &
  daemon=$!
  holders+=("$daemon")
  for ((try = 0; try < 150; try++)); do
    [ ! -S "$socket" ] || ! ready "$socket" 2>/dev/null >&2 || return 0
    sleep 0.2
  done
  tail -n 20 "$root/log" >&2
  die "it does not start: $*"
}
end_daemon() {
  ended "$daemon"
  daemon=
}
# Of a daemon and its children, living and waited for: ticks of the processor; of these processes, the largest peak in kB.
ticks_of() {
  local pid
  for pid in "$1" $(pgrep -P "$1"); do sed 's/.*) //' "/proc/$pid/stat"; done | awk '{ n += $12 + $13 + $14 + $15 } END { print n }'
}
peak_of() {
  local pid
  for pid in "$1" $(pgrep -P "$1"); do sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\).*/\1/p' "/proc/$pid/status"; done | sort -n | tail -n 1
}
# The client's own share is added.
daemon_used() {
  local ticks
  ticks=$(($(ticks_of "$daemon") - ticks_before))
  awk -v ticks="$ticks" -v hz="$(getconf CLK_TCK)" -v peak="$(peak_of "$daemon")" '{ print $1 + ticks / hz, $2, peak }' "$work/usage" >"$work/usage.new"
  mv "$work/usage.new" "$work/usage"
}
start_docker() {
  ready() { docker -H "unix://$1" version; }
  start_daemon "$root/docker.sock" dockerd --data-root "$root/data" --exec-root "$root/exec" --pidfile "$root/pid" -H "unix://$root/docker.sock" \
    --group root --bridge=none --iptables=false --ip6tables=false --storage-driver overlay2
  ticks_before=$(ticks_of "$daemon")
}
pull_docker() { measured "$work/usage" docker -H "unix://$root/docker.sock" pull --quiet "$name"; }
end_docker() { daemon_used; end_daemon; }
start_containerd() {
  ready() { ctr --address "$1" version; }
  printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' >"$root/config.toml"
  start_daemon "$root/containerd.sock" containerd --config "$root/config.toml" --root "$root/root" --state "$root/state" --address "$root/containerd.sock"
  ticks_before=$(ticks_of "$daemon")
}
pull_containerd() { measured "$work/usage" nsenter --net="$net" ctr --address "$root/containerd.sock" images pull --plain-http "$name"; }
end_containerd() { daemon_used; end_daemon; }

# --- the rounds

root=$work/root
mkdir "$root"
# Written once, so that no run pays for the allocation.
dd if=/dev/zero of="$work/disk" bs=1M count="$disk_mb" conv=fsync status=none
disk=$(losetup --direct-io=on --find --show "$work/disk") || die "there is no loop device to put file systems on"
disk_away() {
  umount "$root" 2>/dev/null
  losetup --detach "$disk"
}
clean_up_by disk_away
new_disk() {
  mkfs.ext4 -q -F -N 200000 -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$disk"
  mount -t ext4 "$disk" "$root"
}
# A daemon's last child may be about to end.
old_disk() {
  local try
  for ((try = 0; try < 50; try++)); do
    ! umount "$root" 2>/dev/null || return 0
    sleep 0.1
  done
  die "the disk is in use after $1: $(grep " $root" /proc/self/mountinfo)"
}
has() { declare -F "$1" >/dev/null; }
# round_of ENGINE
round_of() {
  local engine=$1
  new_disk
  ! has "start_$engine" || "start_$engine"
  # What mkfs has written is not the engine's to write.
  sync -f "$root"
  timed "$engine" "pull_$engine"
  ! has "end_$engine" || "end_$engine"
  read -r user system peak < <(tail -n 1 "$work/usage")
  cpu[$engine]+="$(awk -v a="$user" -v b="$system" 'BEGIN { print a + b }') "
  rss[$engine]+="$peak "
  old_disk "$engine"
}
engines=(coracle podman docker containerd skopeo floor floor_synced)
# The registry's files come from memory in all of the rounds.
cat "${blobs[@]}" >/dev/null
for ((round = 0; round < rounds; round++)); do
  for engine in "${engines[@]}"; do round_of "$engine"; done
done
# The floor has done the work if its digests are the image's.
diff <(cut -d ' ' -f 1,3 "$image/layers") <("$floor" "$work/floor" "${blobs[@]}") >&2 || die "the floor's digests are not those of the image"

# --- what it prints

declare -A label=(
  [coracle]="coracle"
  [podman]="podman $(podman --version | awk '{ print $NF }')"
  [docker]="Docker $(dockerd --version | sed -E 's/.*version ([^,]*).*/\1/')"
  [containerd]="containerd $(containerd --version | awk '{ print $3 }')"
  [skopeo]="skopeo, to a folder of blobs: download and SHA-256 of the blobs"
  [floor]="floor: inflate, SHA-256 of both sides, write, from files"
  [floor_synced]="floor, until all is on the disk"
)
median() { spread "$1" | cut -d ' ' -f 1; }
# greatest_mb KILOBYTES...
greatest_mb() { spread "$1" 1024 | cut -d ' ' -f 3; }
echo
awk '{ gzip += $2; plain += $4; entries += $5 } END { printf "A pull of %d layers, %.0f MB gzip, %.0f MB plain, %d entries", NR, gzip / 1e6, plain / 1e6, entries }' "$image/layers"
echo " (layers of $(awk '{ printf "%s%.0f", (NR > 1 ? ", " : ""), $4 / 1e6 } END { print " MB plain" }' "$image/layers")), into a fresh root, $rounds rounds, taking turns:"
echo
echo "| | median ms | least | greatest | CPU s | peak memory MB |"
echo "|---|---:|---:|---:|---:|---:|"
fastest=
for engine in "${engines[@]}"; do
  echo "$(row "${label[$engine]}" "$engine") $(median "${cpu[$engine]}") | $(greatest_mb "${rss[$engine]}") |"
  case $engine in
    podman | docker | containerd)
      if [ -z "$fastest" ] || [ "$(ratio "$engine" "$fastest" | awk '{ print ($1 < 1) }')" = 1 ]; then fastest=$engine; fi
      ;;
  esac
done
echo
echo "CPU time of a daemon is with its client's and its children's; peak memory is the greatest of all rounds, of the one process that is largest."
echo
echo "| ratio | | wanted |"
echo "|---|---:|---:|"
echo "| ${label[$fastest]}, the fastest of the others, to coracle | $(ratio "$fastest" coracle) | at least 4 |"
echo "| coracle to the floor | $(ratio coracle floor) | at most 1.5 |"
echo "| coracle to the floor, until all is on the disk (as coracle's commit waits for it) | $(ratio coracle floor_synced) | |"
cpus=$(nproc)
bound=$(awk -v pull="$(figures coracle)" -v cpu="$(median "${cpu[floor]}")" -v cpus="$cpus" 'BEGIN { split(pull, x); printf "%.2f", x[1] / 1000 / (cpu / cpus) }')
echo "| coracle to the floor's CPU time / $cpus processors: no work of the floor ends earlier, however well it is shared out | $bound | |"
echo "| CPU time of coracle to that of the floor | $(awk -v a="$(median "${cpu[coracle]}")" -v b="$(median "${cpu[floor]}")" 'BEGIN { printf "%.2f", a / b }') | |"
echo "| peak memory of coracle, MB | $(greatest_mb "${rss[coracle]}") | at most 64 |"
load
