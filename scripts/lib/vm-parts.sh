# shellcheck shell=bash
# The parts of test-vm's machine: kernel, disk, initramfs. Each is made once, in a name that says of which versions, and older ones are removed.
# Sourced by test-vm, with which it shares these names.
# shellcheck disable=SC2154,SC2034

# new_part KIND KEY...: the path of a part in `part`; true if it has to be made, as `$part.new`.
new_part() {
  local kind=$1 key
  shift
  key=$(printf '%s\n' "$@" | sha256sum | cut -c 1-12)
  part=$vm/$kind-$key
  [ ! -e "$part" ] || return 1
  as_root rm -rf --one-file-system "$vm/$kind-"*
  part_start=$SECONDS
  say "making the machine's $kind"
}
finish_part() {
  as_root mv "$part.new" "$part"
  printf '%-20s %5d s\n' "${part##*/}" $((SECONDS - part_start))
}

# The package that linux-image-amd64 stands for, unpacked and not installed: this machine is not to boot it.
make_kernel() {
  local package
  package=$(apt-cache show --no-all-versions linux-image-amd64 | sed -nE 's/^Depends: (linux-image-[^ ,]+).*/\1/p')
  kernel_version=$(apt-cache show --no-all-versions "$package" | sed -n 's/^Version: //p')
  if new_part kernel "$package" "$kernel_version" "${guest_modules[@]}"; then
    mkdir -p "$part.new"
    (
      set -e
      cd "$part.new"
      apt_update_once
      apt-get download -qq -o APT::Sandbox::User="$(id -un)" "$package"
      dpkg -x "$package"_*.deb all
      release=$(basename all/lib/modules/*)
      chosen=$PWD/modules/lib/modules/$release
      mkdir -p "$chosen/kernel"
      cp all/lib/modules/"$release"/modules.{order,builtin,builtin.modinfo} "$chosen/"
      (cd "all/lib/modules/$release/kernel" && cp -r --parents "${guest_modules[@]}" "$chosen/kernel/")
      /sbin/depmod -b modules "$release"
      cp all/boot/vmlinuz-* vmlinuz
      rm -rf all ./*.deb
    )
    finish_part
  fi
  kernel=$part
}

# A root filesystem from the mirror that apt itself uses.
make_disk() {
  local codename mirror versions
  # shellcheck source=/dev/null
  codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
  # shellcheck disable=SC2016 # apt's own placeholder
  mirror=$(apt-get indextargets --format '$(SITE)' "Codename: $codename" "Created-By: Packages" | head -n 1)
  versions=$(apt-cache show --no-all-versions "${guest_packages[@]}" | sed -n 's/^Version: //p')
  if new_part disk "$codename" "$versions" "${guest_packages[*]}" "$kernel"; then
    local root=$part.root include
    include=$(IFS=,; echo "${guest_packages[*]}")
    as_root debootstrap --variant=minbase --include="$include" "$codename" "$root" "$mirror" >"$vm/debootstrap.log" 2>&1 ||
      { tail -n 30 "$vm/debootstrap.log" >&2; die "debootstrap failed"; }
    as_root rm -rf "$root"/var/cache/apt/archives "$root"/var/lib/apt/lists "$root"/usr/share/{doc,man,locale}
    as_root cp -r "$kernel/modules/lib/modules" "$root/lib/"
    # The repository's folder, to mount it on; everything else is made as it boots.
    as_root mkdir -p "$root$PWD" "$root/results"
    as_root mke2fs -q -t ext4 -L coracle-test -d "$root" "$part.new" 8G
    as_root rm -rf --one-file-system "$root"
    finish_part
  fi
  disk=$part
}

# Just enough to mount the disk and the repository.
make_initramfs() {
  local release
  release=$(basename "$kernel"/modules/lib/modules/*)
  if new_part initramfs "$kernel" "$(sha256sum scripts/lib/vm-init)" "$(dpkg-query -W busybox-static)"; then
    local tree=$part.tree module
    mkdir -p "$tree/bin" "$tree/modules"
    cp "$(command -v busybox)" "$tree/bin/busybox"
    cp scripts/lib/vm-init "$tree/init"
    # In the order in which they are to be loaded.
    for module in virtio_pci virtio_blk virtio_rng ext4 9pnet_virtio 9p; do
      /sbin/modprobe --dirname "$kernel/modules" --set-version "$release" --ignore-install --show-depends "$module"
    done | sed -n 's/^insmod //p' | awk '!seen[$1]++ { print $1 }' | while read -r module; do
      cp "$module" "$tree/modules/"
      echo "${module##*/}" >>"$tree/modules/order"
    done
    (cd "$tree" && find . | cpio --quiet -o -H newc --owner 0:0) >"$part.new"
    rm -rf "$tree"
    finish_part
  fi
  initramfs=$part
}

# Whether KVM runs our kernel here. That it opens is not enough: in a machine that is virtual itself, and whose processor has none of the
# extensions for it, a guest hangs.
kvm_works() {
  [ -w /dev/kvm ] && grep -qw -e vmx -e svm /proc/cpuinfo || return 1
  timeout --kill-after=5 30 qemu-system-x86_64 -no-user-config -nodefaults -no-reboot -display none -serial "file:$vm/kvm.log" -nic none \
    -machine q35 -accel kvm -cpu max -m 512M -kernel "$kernel/vmlinuz" -initrd "$initramfs" \
    -append "console=ttyS0 panic=-1 quiet coracle.probe" >/dev/null 2>&1 && grep -q "^coracle: booted" "$vm/kvm.log"
}
