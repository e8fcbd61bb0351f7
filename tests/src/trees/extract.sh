# shellcheck shell=sh
# Applies layers to an empty folder as the specification says it (image-spec layer, Whiteouts): of each layer, the whiteouts first, which are
# about the layers below it alone; then all else, by GNU tar. Run by sh with: the folder, and the layers' tars from the lowest up.
set -eu
umask 022
root=$1
shift
mkdir -p "$root"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"
for tar; do
  # One line each: a new line in a name is escaped. The first letter of the long form is the type.
  tar --list --quoting-style=escape -f "$tar" | sed 's,^\./,,; s,/$,,; s,^$,.,' >"$work/names"
  tar --list --verbose --quoting-style=escape -f "$tar" | cut -c 1 >"$work/types"
  find . -mindepth 1 -type d -printf '%T@ %P\n' >"$work/times"
  printf '%s .\n' "$(stat -c %.9Y .)" >>"$work/times"
  # `a/.wh.x` takes a/x away, `a/.wh..wh..opq` all that is in a/.
  # What is no folder takes a folder's place: tar would keep the folder.
  paste -d ' ' "$work/types" "$work/names" | while IFS= read -r line; do
    type=${line%% *} name=${line#* }
    case $name in
      .wh.* | */.wh.*)
        folder=./$(dirname "$name") base=${name##*/}
        case $base in
          .wh..wh..opq) [ ! -d "$folder" ] || [ -L "$folder" ] || find "$folder" -mindepth 1 -delete ;;
          *) rm -rf "${folder:?}/${base#.wh.}" ;;
        esac
        ;;
      *) [ "$type" = d ] || [ ! -d "$name" ] || [ -L "$name" ] || rm -rf "$name" ;;
    esac
  done
  tar --extract --preserve-permissions --same-owner --numeric-owner --xattrs --xattrs-include='*' \
    --delay-directory-restore --exclude='.wh.*' --warning=no-timestamp -f "$tar"
  # Folders that the layer does not name keep their times, whatever was put into them.
  awk 'NR == FNR { named[$0] = 1; next } { path = $0; sub(/^[^ ]* /, "", path); if (!(path in named)) print }' "$work/names" "$work/times" |
    while IFS= read -r line; do
      folder=${line#* }
      if [ -d "$folder" ] && [ ! -L "$folder" ]; then touch -d "@${line%% *}" "$folder"; fi
    done
done
