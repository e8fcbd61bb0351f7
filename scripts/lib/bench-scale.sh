# shellcheck shell=bash disable=SC2034,SC2154,SC2016 # variables of bench.sh; Markdown in quotes
# Does the last of many cost more than the first? Two machines, one empty and one crowded, take turns with the same command, so that
# whatever else slows the machine down slows both. Sourced by scripts/bench with: containers|user-network|networks BACKEND NUMBER ROUNDS.

what=${1:-containers} backend=${2:-iptables} number=${3:-200} rounds=${4:-15}
case $backend in iptables | nftables) ;; *) die "no such backend: $backend" ;; esac
export CORACLE_FIREWALL=$backend
patience=12
build

network=bridge
[ "$what" != user-network ] || network=crowd
# The crowd publishes a port each: the harder case.
crowd_container() { coracle_on crowded run -d --network "$network" -p "$((20000 + $1)):80" busybox sleep 100000; }
crowd_network() { coracle_on crowded network create "crowd$1"; }
run_on() { coracle_on "$1" run -d --name probe --network "$network" "${@:2}" busybox sleep 1000; }

# floor HOST KIND: what the kernel and iptables alone take for the same, with their own programs, in the same state.
links_on() {
  local bridge
  bridge=$(coracle_on "$1" network inspect "$network" 2>/dev/null | sed -n 's/.*"com.docker.network.bridge.name": "\(.*\)".*/\1/p' | head -n 1)
  echo "${bridge:-coracle0}"
}
veth_on() { on "$1" ip -batch - <<<"link add cbenchv type veth peer name cbenchp
link set cbenchv master $bridge up
link set cbenchp up
link del cbenchv"; }
bridge_on() { on "$1" ip -batch - <<<"link add cbenchb type bridge
addr add 192.0.2.1/24 dev cbenchb
link set cbenchb up
link del cbenchb"; }
rule_on() {
  case $backend in
    iptables) on "$1" iptables-restore --noflush -w <<<'*filter
-A CORACLE -d 192.0.2.9/32 -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
*nat
-A CORACLE -p tcp -m tcp --dport 9 -j DNAT --to-destination 192.0.2.9:80
COMMIT' ;;
    nftables) on "$1" nft -f - <<<'add element inet coracle published4 { 192.0.2.9 . tcp . 80 }' ;;
  esac
}
unrule_on() {
  case $backend in
    iptables) on "$1" iptables-restore --noflush -w <<<'*filter
-D CORACLE -d 192.0.2.9/32 -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
*nat
-D CORACLE -p tcp -m tcp --dport 9 -j DNAT --to-destination 192.0.2.9:80
COMMIT' ;;
    nftables) on "$1" nft -f - <<<'delete element inet coracle published4 { 192.0.2.9 . tcp . 80 }' ;;
  esac
}

for host in empty crowded; do
  new_host "$host"
  import_on "$host"
  # The machine is up: what the very first command adds (the base chains) is not the matter here.
  [ "$what" != user-network ] || coracle_on "$host" network create crowd >/dev/null
  coracle_on "$host" run -d --name first --network "$network" -p 19999:80 busybox sleep 100000 >/dev/null
done

say "$number ${what/user-network/containers on a user network} with $backend" >&2
settled=$waits waits=at-once
for ((i = 1; i <= number; i++)); do
  case $what in
    networks) timed "$([ "$i" -gt 15 ] || echo first)$([ "$i" -le $((number - 15)) ] || echo last)_made" crowd_network "$i" ;;
    *) timed "$([ "$i" -gt 15 ] || echo first)$([ "$i" -le $((number - 15)) ] || echo last)_made" crowd_container "$i" ;;
  esac
done
waits=$settled
bridge=$(links_on crowded)

for ((round = 0; round < rounds; round++)); do
  for host in empty crowded; do
    case $what in
      networks)
        timed "$host-create" coracle_on "$host" network create probe
        timed "$host-remove" coracle_on "$host" network rm probe
        timed "$host-run" run_on "$host"
        coracle_on "$host" rm -f probe >/dev/null
        timed "$host-floor-link" bridge_on "$host"
        ;;
      *)
        timed "$host-run" run_on "$host"
        timed "$host-rm" coracle_on "$host" rm -f probe
        timed "$host-run-p" run_on "$host" -p 8080:80
        timed "$host-rm-p" coracle_on "$host" rm -f probe
        timed "$host-run-rm-p" coracle_on "$host" run --rm --network "$network" -p 8080:80 busybox true
        timed "$host-floor-link" veth_on "$host"
        ;;
    esac
    timed "$host-floor-rule" rule_on "$host"
    timed "$host-floor-unrule" unrule_on "$host"
  done
done

scale_row() {
  read -r first _ < <(figures "empty-$2"; echo)
  read -r last _ < <(figures "crowded-$2"; echo)
  echo "| $1 | $first | $last | $(ratio "crowded-$2" "empty-$2") |"
}
echo
echo "$number ${what/user-network/containers on a user network} with $backend, $rounds rounds, taking turns, medians in ms:"
echo
echo "| | empty machine | crowded machine | ratio |"
echo "|---|---:|---:|---:|"
case $what in
  networks)
    scale_row '`network create`' create
    scale_row '`network rm`' remove
    scale_row '`run -d`' run
    scale_row 'floor: `ip` makes and removes a bridge with an address' floor-link
    ;;
  *)
    scale_row '`run -d`' run
    scale_row '`rm -f`' rm
    scale_row '`run -d -p 8080:80`' run-p
    scale_row '`rm -f`, with `-p`' rm-p
    scale_row '`run --rm -p 8080:80 busybox true`' run-rm-p
    scale_row 'floor: `ip` makes and removes a veth on the bridge' floor-link
    ;;
esac
scale_row "floor: \`$([ "$backend" = iptables ] && echo iptables-restore || echo nft)\` adds a port's rules" floor-rule
scale_row "floor: it removes them" floor-unrule
echo "| while the crowd came, one after the other: the first 15, the last 15 | $(figures first_made | cut -d ' ' -f 1) | $(figures last_made | cut -d ' ' -f 1) | $(ratio last_made first_made) |"
load
