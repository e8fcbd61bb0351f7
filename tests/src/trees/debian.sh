# shellcheck shell=sh
# A Debian of five layers as an OCI layout, tagged `debian`, by the tools that people build images with: umoci writes the layers 1 to 3,
# buildah the fourth, GNU tar the fifth. Run by sh with: the layout's folder.
set -eu
layout=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/debs"
download() { (cd "$work/debs" && apt-get download -qq "$@" 2>"$work/log"); }
packages='base-files base-passwd bash coreutils dash iputils-ping libc6 libtinfo6 login mount passwd perl-base tzdata util-linux'
# The lists may be older than what the mirror has.
# shellcheck disable=SC2086 # words
download $packages || { apt-get update -qq && download $packages; } || { cat "$work/log" >&2; exit 1; }
unpack() { for name in "$@"; do dpkg-deb -x "$work"/debs/"$name"_*.deb "$root"; done; }

umoci init --layout "$layout"
umoci new --image "$layout:debian"
umoci unpack --image "$layout:debian" "$work/bundle"
root=$work/bundle/rootfs
repack() { umoci repack --image "$layout:debian" --refresh-bundle "$work/bundle"; }

# 1: packages, with their setuid and setgid programs (su, passwd, chage) and hard links (perl, perl5.36.0).
unpack base-files bash coreutils dash libc6 libtinfo6 login passwd perl-base
mkdir -p "$root/var/spool/mail" "$root/srv/shared"
chmod 2775 "$root/srv/shared"
chgrp 8 "$root/srv/shared" "$root/var/spool/mail"
# umoci's rootfs is a folder of root's.
chmod 755 "$root"
repack

# 2: more packages over them. What the maintainer's script of iputils-ping does: a file capability.
unpack iputils-ping mount tzdata util-linux
setcap cap_net_raw+ep "$(find "$root" -path '*/bin/ping')"
setfattr -n user.origin -v debian "$root/etc/debian_version"
setfattr -n user.folder -v 'of attributes' "$root/srv/shared"
mkdir "$root/srv/listed"
setfacl -m u:1000:rwx,d:g:50:rx "$root/srv/listed"
setfacl -m u:1001:r "$root/etc/issue"
# Whiteouts: a file, a folder with all in it, one of two names of a file.
rm -rf "$root/usr/share/doc" "$root/usr/share/man" "$root/etc/issue.net"
rm "$(find "$root/usr/bin" -name 'perl5*')"
# A folder becomes a file, a file a folder, a symlink a file, and a file a symlink.
rm -rf "$root/usr/share/bug" && echo none >"$root/usr/share/bug"
rm "$root/etc/motd" 2>/dev/null || true
rm "$root/etc/host.conf" && mkdir "$root/etc/host.conf" && echo multi on >"$root/etc/host.conf/multi"
rm "$root/etc/os-release" && echo ID=changed >"$root/etc/os-release"
rm "$root/usr/lib/os-release" && ln -s ../../etc/os-release "$root/usr/lib/os-release"
chmod 4711 "$root/bin/su" 2>/dev/null || chmod 4711 "$root/usr/bin/su"
chown 100:101 "$root/etc/debian_version"
repack

# 3: a folder that is opaque: none of the time zones of the layer below.
mkdir "$work/zones"
ln -s Etc/UTC "$work/zones/localtime"
mkdir "$work/zones/Etc" && echo UTC >"$work/zones/Etc/UTC"
umoci insert --image "$layout:debian" --opaque "$work/zones" /usr/share/zoneinfo

# 4: buildah finds by itself what has changed.
buildah() { command buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
container=$(buildah from "oci:$layout:debian")
mounted=$(buildah mount "$container")
rm -rf "$mounted/usr/share/perl5" "$mounted/usr/share/common-licenses"
mkdir "$mounted/usr/share/common-licenses"
echo free >"$mounted/usr/share/common-licenses/ours"
chmod 6755 "$mounted/usr/bin/env" 2>/dev/null || chmod 6755 "$mounted/bin/env"
mkfifo -m 620 "$mounted/var/spool/mail/fifo"
mknod -m 640 "$mounted/dev/ours" c 10 229
ln "$mounted/etc/debian_version" "$mounted/etc/debian_version.2"
head -c 100000 /dev/zero >"$mounted/var/zeros"
buildah umount "$container" >/dev/null
buildah commit --quiet --format oci "$container" "oci:$layout:debian" >/dev/null

# 5: no parents, and a hard link to a file of the first layer, as builders without a root filesystem write them.
over=$work/over
mkdir -p "$over/tmp" "$over/srv/shared" "$over/usr/bin"
echo here >"$over/tmp/left-behind"
echo here >"$over/srv/shared/file"
echo filler >"$over/usr/bin/filler"
ln "$over/usr/bin/filler" "$over/usr/bin/login-again"
: >"$over/usr/bin/.wh.chage"
(cd "$over" && printf '%s\0' tmp/left-behind srv/shared/file usr/bin/filler usr/bin/login-again usr/bin/.wh.chage |
  tar --format=posix --numeric-owner --owner=0 --group=0 --no-recursion --null -T - \
    --transform "flags=h;s,^usr/bin/filler\$,usr/bin/passwd," -cf "$work/fifth.tar")
umoci raw add-layer --image "$layout:debian" "$work/fifth.tar"
umoci gc --layout "$layout"
