# shellcheck shell=bash
# The test programs: one build, then nothing but its programs is run, for cargo would build anew for each choice of packages.
# Sourced after machine.sh.

# build_programs: sets `programs`, a line for each (its crate's folder, the target's name, the path), and `binary`, the program under test.
build_programs() {
  local start=$SECONDS listing=$PWD/target/test-logs/programs.json program name path
  mkdir -p "${listing%/*}"
  say "building"
  cargo test --workspace --no-run --quiet --message-format=json-render-diagnostics >"$listing"
  printf '%-20s %5d s\n' "build" $((SECONDS - start))
  mapfile -t programs < <(sed -nE 's/^\{"reason":"compiler-artifact","package_id":"[^"]*\/([a-z]+)#.*"target":\{[^}]*"name":"([^"]+)".*"executable":"([^"]+)".*/\1 \2 \3/p' "$listing" | grep -v /examples/)
  binary=
  for program in "${programs[@]}"; do
    read -r _ name path <<<"$program"
    [ "$name" != coracle ] || [[ $path == */deps/* ]] || binary=$path
  done
  [ -n "$binary" ] || die "cargo names no program to test; see $listing"
}

# programs_of FOLDER [NAME]: the test programs of a crate.
programs_of() {
  local program folder name path
  for program in "${programs[@]}"; do
    read -r folder name path <<<"$program"
    if [ "$folder" = "$1" ] && [ "${2:-$name}" = "$name" ] && [ "$path" != "$binary" ]; then echo "$path"; fi
  done
}
