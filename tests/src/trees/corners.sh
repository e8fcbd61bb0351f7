# shellcheck shell=sh
# Layers with all that tars and overlays make hard, by GNU tar: 1.tar to 6.tar, from the lowest up. Run by sh with: a folder for them.
set -eu
umask 022
out=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
layer() { mkdir "$work/$1" && cd "$work/$1"; }
# pack NUMBER OPTION...: what stands on standard input, in that order and nothing else, parents neither.
pack() {
  number=$1
  shift
  tar --no-recursion --numeric-owner "$@" -cf "$out/$number.tar" -T -
}
attribute() { setfattr -h -n "$1" -v "$2" "$3"; }
letters() { printf "%0$1d" 0 | tr 0 "$2"; }
# 1. PAX: what a file can be.
layer 1
mkdir -p dirs/empty dirs/sticky dirs/setgid opaque-first/sub opaque-last/sub gone/deep whited/deep implicit/private implicit/deep/er
chmod 1777 dirs/sticky
chmod 2750 dirs/setgid
chmod 700 implicit/private
chown 7:8 implicit/private dirs/setgid
echo plain >file
for mode in 4755 2755 6711 1644 0000 0400; do
  echo "$mode" >"mode-$mode"
  chown 12:34 "mode-$mode"
  chmod "$mode" "mode-$mode"
done
: >empty
head -c 700000 /dev/urandom >random
ln -s file link-relative
ln -s /dirs/sticky link-absolute
ln -s /nowhere/at/all link-dangling
ln -s dirs link-to-folder
ln -s loop loop
mkfifo -m 604 fifo
mknod -m 660 char c 10 229
mknod -m 600 block b 259 1048575
echo one >hard-a
ln hard-a hard-b
ln hard-a dirs/hard-c
ln link-dangling hard-symlink
ln fifo hard-fifo
ln char hard-char
echo big >big-ids
chown 4000000000:4294967294 big-ids
chown -h 70000:80000 link-relative
mkdir -p "$(letters 120 d)/$(letters 200 e)"
echo long >"$(letters 120 d)/$(letters 200 e)/$(letters 250 f)"
ln -s "$(letters 250 t)/$(letters 250 u)" long-target
echo latin >"$(printf 'latin-\344\366\374')"
echo odd >"$(printf 'new\nline')"
echo odd >'back\slash and  spaces '
echo utf >'ünïcode-文字'
echo caps >caps
setcap cap_net_raw,cap_net_admin+ep caps
echo attributes >attributes
attribute user.text 'of a file' attributes
attribute user.empty '' attributes
attribute user.binary 0s/wAKPQ== attributes
attribute trusted.mine yes attributes
attribute user.text 'of a folder' dirs/empty
attribute trusted.mine link link-dangling
attribute trusted.mine device block
attribute trusted.overlay.redirect /elsewhere dirs/sticky
attribute trusted.overlay.opaque y dirs
attribute user.overlay.opaque y attributes
echo acl >acl
setfacl -m u:1000:rwx,g:50:r acl
setfacl -m u:1000:rwx,d:u:1001:rx implicit/deep
for dir in opaque-first opaque-last opaque-first/sub opaque-last/sub gone gone/deep whited whited/deep implicit implicit/private implicit/deep; do
  echo lower >"$dir/lower"
done
echo below >lower-file
attribute user.text 'of a file below' lower-file
chown 21:22 lower-file
chmod 4751 lower-file
ln -s lower-file lower-symlink
echo deep >implicit/deep/er/target
echo caps >lower-caps
setcap cap_chown+ep lower-caps
for name in file-to-folder file-to-symlink file-to-fifo symlink-target both-file both-folder-was-file; do echo was a file >"$name"; done
for name in folder-to-file folder-to-symlink both-folder; do
  mkdir "$name"
  echo inside >"$name/inside"
done
ln -s symlink-target symlink-to-file
ln -s dirs symlink-to-folder
find . -exec touch -h -d '2001-02-03 04:05:06.123456789' {} +
touch -d '1955-05-05 05:05:05.987654321' file
touch -d '2262-04-11 23:47:16.5' empty
touch -h -d '2011-11-11 11:11:11.000000001' link-relative
touch -d '2020-02-02 02:02:02.999999999' dirs dirs/sticky implicit/deep
# One name has a new line in it.
find . -print0 | sort -z >"$work/list"
pack 1 --null --xattrs --xattrs-include='*' --format=posix --pax-option=delete=atime,delete=ctime <"$work/list"

# 2. GNU's format: base 256, long names; and what a layer can do to those below. Markers before their siblings and after them.
layer 2
mkdir -p opaque-first/sub opaque-last/sub both-folder both-folder-was-file file-to-folder symlink-to-folder whited gone
echo upper >opaque-first/upper
echo upper >opaque-last/upper
echo upper >opaque-last/sub/upper
: >opaque-first/.wh..wh..opq
: >opaque-last/.wh..wh..opq
: >.wh.gone
: >whited/.wh.deep
: >whited/.wh.never-was
: >.wh.hard-a
echo both >both-file
: >.wh.both-file
: >.wh.both-folder
: >.wh.both-folder-was-file
echo new >both-folder/new
echo new >both-folder-was-file/new
echo new >file-to-folder/new
echo new >folder-to-file
ln -s dirs folder-to-symlink
ln -s elsewhere file-to-symlink
mkfifo file-to-fifo
echo new >symlink-to-file
echo new >symlink-to-folder/new
rmdir gone
echo big >big-ids-gnu
chown 3000000000:3000000001 big-ids-gnu
echo old >before-1970
mkdir "$(letters 150 g)"
echo long >"$(letters 150 g)/$(letters 150 h)"
ln "$(letters 150 g)/$(letters 150 h)" "$(letters 150 g)/hard-to-long"
ln -s "$(letters 200 t)" long-target-gnu
chmod 500 opaque-first
find . -exec touch -h -d '2005-05-05 05:05:05' {} +
touch -d '1950-01-01 00:00:00' before-1970
pack 2 --format=gnu <<END
opaque-first
opaque-first/.wh..wh..opq
opaque-first/upper
opaque-first/sub
opaque-last
opaque-last/sub
opaque-last/sub/upper
opaque-last/upper
opaque-last/.wh..wh..opq
.wh.gone
whited/.wh.deep
whited/.wh.never-was
.wh.hard-a
.wh.both-file
both-file
both-folder
both-folder/new
.wh.both-folder
.wh.both-folder-was-file
both-folder-was-file
both-folder-was-file/new
file-to-folder
file-to-folder/new
folder-to-file
folder-to-symlink
file-to-symlink
file-to-fifo
symlink-to-file
symlink-to-folder
symlink-to-folder/new
big-ids-gnu
before-1970
$(letters 150 g)
$(letters 150 g)/$(letters 150 h)
$(letters 150 g)/hard-to-long
long-target-gnu
END

# 3. ustar, whose names come in two fields; a file twice in one tar, of which the last counts.
layer 3
mkdir -p "$(letters 90 p)/$(letters 60 q)"
echo split >"$(letters 90 p)/$(letters 60 q)/$(letters 80 r)"
echo first >twice
echo file >twice-other
find . -exec touch -d '2003-03-03 03:03:03' {} +
find . -mindepth 1 | sort | pack 3 --format=ustar
echo second >twice
rm twice-other && ln -s file twice-other
touch -h -d '2003-03-03 03:03:04' twice twice-other
tar --numeric-owner --format=ustar -rf "$out/3.tar" twice twice-other

# 4. Nothing at all.
layer 4
pack 4 </dev/null

# 5. No parents; hard links to what is only in lower layers: to a file with an owner, a mode and an attribute, to one with a capability, to a
# symlink, to one in a folder that this layer does not name. `--transform` renames the targets of links alone.
layer 5
mkdir -p implicit/private implicit/deep/er dirs/sticky new/parents/of/its/own
echo child >implicit/private/child
echo child >dirs/sticky/child
echo child >new/parents/of/its/own/child
: >implicit/deep/.wh.lower
for name in file caps symlink deep; do
  echo filler >"z-$name"
  ln "z-$name" "link-to-lower-$name"
done
ln z-deep implicit/link-to-lower-deep
find . -exec touch -h -d '2005-05-05 05:05:05' {} +
pack 5 --format=posix --pax-option=delete=atime,delete=ctime \
  --transform 'flags=h;s,^z-file$,lower-file,' --transform 'flags=h;s,^z-caps$,./lower-caps,' \
  --transform 'flags=h;s,^z-symlink$,lower-symlink,' --transform 'flags=h;s,^z-deep$,implicit/deep/er/target,' <<END
implicit/private/child
dirs/sticky/child
new/parents/of/its/own/child
implicit/deep/.wh.lower
z-file
link-to-lower-file
z-caps
link-to-lower-caps
z-symlink
link-to-lower-symlink
z-deep
link-to-lower-deep
implicit/link-to-lower-deep
END

# 6. The second once more.
cp "$out/2.tar" "$out/6.tar"
