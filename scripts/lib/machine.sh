# shellcheck shell=bash
# What the scripts need of a machine. Sourced, not run. Debian or Ubuntu; nothing is installed that is there already.

# What it takes to build: libseccomp for the system call filter, libelf and zlib for the device rules of cgroup v2.
# cargo needs the certificates to download.
# shellcheck disable=SC2034 # used by those that source this
build_packages=(gcc libc6-dev make pkg-config libseccomp-dev libelf-dev zlib1g-dev ca-certificates)

say() { printf '\n== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Runs a command as root: as it is, or by sudo.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "root is needed for: $* (and there is no sudo)"
  fi
}

# The programs of a package may be in folders that a user's PATH lacks.
export PATH="$PATH:/usr/sbin:/sbin"

updated=
apt_update_once() {
  [ -n "$updated" ] || as_root apt-get update -qq
  updated=yes
}

# install_packages NAME...: those of them that are missing.
install_packages() {
  local package missing=()
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "these packages are missing, and there is no apt-get to install them: ${missing[*]}"
  say "installing ${missing[*]}"
  apt_update_once
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# install_asleep PACKAGE...: those of them that are missing, and none of their services is started: policy-rc.d(8) forbids it meanwhile.
install_asleep() {
  local policy=/usr/sbin/policy-rc.d ours= status=0
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    ours=yes
  fi
  # In a subshell: a failure in there must not leave the policy behind.
  (install_packages "$@") || status=$?
  [ -z "$ours" ] || as_root rm -f "$policy"
  return "$status"
}

# unpack_program PROGRAM PACKAGE FOLDER: for a package that would start a service when installed. Its files are unpacked into FOLDER instead,
# and the folder with the program is put into PATH.
unpack_program() {
  local program=$1 package=$2 folder=$3
  if ! command -v "$program" >/dev/null && [ ! -x "$folder/usr/bin/$program" ]; then
    say "unpacking $package"
    apt_update_once
    mkdir -p "$folder"
    (cd "$folder" && apt-get download -qq "$package" && dpkg -x "$package"_*.deb . && rm "$package"_*.deb)
  fi
  PATH="$PATH:$folder/usr/bin"
}

# A Rust that is new enough. It is not installed for the user: which one to have is theirs to choose.
need_rust() {
  [ ! -d "$HOME/.cargo/bin" ] || PATH="$HOME/.cargo/bin:$PATH"
  command -v cargo >/dev/null ||
    die "Rust is missing. Install it with rustup (apt-get install rustup && rustup default stable, or see rustup.rs), then run this again."
  local wanted have
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  have=$(rustc --version | cut -d ' ' -f 2)
  printf '%s\n%s\n' "$wanted" "$have" | sort -V -C || die "Rust $have is too old: $wanted or newer is needed (rustup update)."
}
