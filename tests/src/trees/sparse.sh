# shellcheck shell=sh
# A layer for each way in which GNU tar writes files with holes: 1.tar to 4.tar. Run by sh with: a folder for them.
set -eu
out=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
number=0
for form in gnu 'posix --sparse-version=0.0' 'posix --sparse-version=0.1' 'posix --sparse-version=1.0'; do
  number=$((number + 1))
  mkdir "layer-$number"
  # Data in more pieces than a header has room for, with holes before, between and after.
  truncate -s 8M "layer-$number/pieces-$number"
  for at in 1 2 3 4 5 6 7 70 71 72; do
    printf 'data at %s' "$at" | dd of="layer-$number/pieces-$number" bs=100K seek="$at" conv=notrunc status=none
  done
  truncate -s 3M "layer-$number/hole-$number"
  { truncate -s 1M /dev/stdout && echo end; } >"layer-$number/end-$number"
  find "layer-$number" -exec touch -d '2001-02-03 04:05:06' {} +
  # shellcheck disable=SC2086 # words
  tar --sparse --format=$form --numeric-owner -C "layer-$number" -cf "$out/$number.tar" .
done
