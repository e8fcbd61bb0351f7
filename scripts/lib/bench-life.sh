# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # variables of bench.sh; Markdown, and a program for another shell
# What one does with a container that runs, here and with Docker 20.10. Sourced by scripts/bench with: ROUNDS.

rounds=${1:-9}
build
new_host coracle
import_on coracle
docker_up

declare -A engine_of=([coracle]="coracle_on coracle" [docker]="docker_on")
# engine NAME WORD...
engine() { ${engine_of[$1]} "${@:2}"; }
engines=(coracle docker)

# A program that ends at once when it is asked to.
willing='trap "exit 0" TERM; while :; do sleep 0.05; done'
megabytes=64
# Lines of 100 bytes, as programs write them: a buffer at a time.
writing='yes "$(printf %099d 0)" | head -c '$((megabytes * 1024 * 1024))
head -c $((16 * 1024 * 1024)) /dev/urandom >"$work/file"
for name in "${engines[@]}"; do
  engine "$name" run -d --name long busybox sh -c "$willing" >/dev/null
done

# command NAME ENGINE: one round of it, timed; what it needs before and after is not.
declare -A label=(
  [exec]='`exec C true`'
  [cp]='`cp FILE C:/tmp`, 16 MiB'
  [restart]='`restart C`'
  [stop]='`stop C`'
  [ps]='`ps`'
  [log]="\`run --rm\` of a program that writes $megabytes MiB in lines of 100 bytes"
)
commands=(exec cp restart stop ps log)
round_of() {
  local series=$1.$2
  case $1 in
    exec) timed "$series" engine "$2" exec long true ;;
    cp) timed "$series" engine "$2" cp "$work/file" long:/tmp/ ;;
    restart) timed "$series" engine "$2" restart long ;;
    stop)
      engine "$2" run -d --name short busybox sh -c "$willing" >/dev/null
      # Its handler must be there.
      sleep 0.3
      timed "$series" engine "$2" stop short
      engine "$2" rm short >/dev/null
      ;;
    ps) timed "$series" engine "$2" ps ;;
    log) timed "$series" engine "$2" run --rm busybox sh -c "$writing" ;;
  esac
}
for name in "${engines[@]}"; do round_of exec "$name"; done
times=()
unsettled=0
for ((round = 0; round < rounds; round++)); do
  for command in "${commands[@]}"; do
    for name in "${engines[@]}"; do round_of "$command" "$name"; done
  done
done

echo
echo "What one does with a container, $rounds rounds, taking turns; medians in ms:"
echo
echo "| command | coracle | Docker $(docker_on version --format '{{.Server.Version}}') | ratio |"
echo "|---|---:|---:|---:|"
for command in "${commands[@]}"; do
  read -r ours _ < <(figures "$command.coracle"; echo)
  read -r theirs _ < <(figures "$command.docker"; echo)
  echo "| ${label[$command]} | $ours | $theirs | $(ratio "$command.coracle" "$command.docker") |"
done
load
