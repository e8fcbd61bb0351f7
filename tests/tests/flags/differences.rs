//! What works otherwise than in Docker, on purpose: a command or flag as in `docker.txt`, and how. It still has its cell.
//!
//! In a few words: docs/differences.md has the reasons.

pub const DIFFERENCES: &[(&str, &str)] = &[
    ("run", "what fails to start leaves no container"),
    (
        "run --add-host",
        "`host-gateway` is the gateway of the container's own network",
    ),
    (
        "run --blkio-weight",
        "left out, with a warning, where the kernel has no such file",
    ),
    (
        "run --cap-add",
        "`ALL` is all that are ours to give, where Docker fails",
    ),
    (
        "run --cgroup-parent",
        "a relative path is below each hierarchy's root",
    ),
    (
        "run --cidfile",
        "the file goes with a container that failed to start",
    ),
    ("run --cpu-shares", "1 and 300000 are refused at `create`"),
    ("run --cpus", "0.001 is refused at `create`"),
    (
        "run --detach-keys",
        "wrong keys are told by name; keys are found in pasted text too",
    ),
    ("run --device", "below /dev only"),
    (
        "run --device-read-bps",
        "a device that is none is refused at `create`; so with the other three rates",
    ),
    (
        "run --disable-content-trust",
        "accepted and of no effect: images are not signed",
    ),
    ("run --dns", "127.0.0.1 is the host's loopback"),
    ("run --init", "the program is `/sbin/coracle-init`"),
    (
        "run --kernel-memory",
        "checked and discarded, as from Docker 23 on",
    ),
    (
        "run --log-driver",
        "json-file, local and none; bytes that are not UTF-8 stay as they were",
    ),
    (
        "run --log-opt",
        "checked by `create`; `tag` knows fields alone",
    ),
    (
        "run --mac-address",
        "not a group's, not another container's",
    ),
    (
        "run --mount",
        "shared and slave binds last, nothing mounted below them; `readonly` is so with all below; a file system by `volume-opt` is refused",
    ),
    ("run --network", "with `none`, `-p` gives a warning"),
    (
        "run --oom-score-adj",
        "a score below the caller's own is refused by a text that says which right is missing",
    ),
    (
        "run --privileged",
        "all capabilities that are ours, where Docker fails; a seccomp profile that was asked for stays",
    ),
    (
        "run --publish",
        "refused with an internal network; long ranges are one rule; never reachable by a route of the neighbour's own",
    ),
    (
        "run --runtime",
        "a program by path or name; a seccomp profile of one's own does not go with it",
    ),
    (
        "run --security-opt",
        "no AppArmor profile by default; a bad seccomp profile is refused at `create`",
    ),
    (
        "run --stop-signal",
        "numbers that are no signal are refused",
    ),
    (
        "run --tmpfs",
        "bad options are refused at `create`; not on the target of a `--mount`",
    ),
    (
        "run --tty",
        "a terminal is given back when the client is killed; the container ends if its monitor is killed",
    ),
    (
        "run --ulimit",
        "set right before the program; above this host's own refused at `create`",
    ),
    (
        "run --volume",
        "relative paths and names of one letter are refused; volumes are filled at the first start; `ro` with all below",
    ),
    (
        "exec",
        "a missing program ends with 127; detaching is silent, with 0",
    ),
    (
        "images --all",
        "of no effect: there are no intermediate images",
    ),
    ("attach", "a client that does not read is cut off at 256 kB"),
    (
        "cp",
        "symlinks that point above the destination are copied as they are; holes and nanoseconds are kept; not while the container restarts",
    ),
    ("diff", "sorted, parents first"),
    ("events", "the last 10,000, also of earlier boots"),
    (
        "export",
        "without `.dockerenv`, `/dev/console` and `/etc/mtab`; holes are kept",
    ),
    ("inspect", "`SandboxKey` is empty"),
    (
        "inspect --format",
        "templates without `define`, `block`, `template` and `call`; so everywhere",
    ),
    (
        "kill",
        "only SIGKILL and the stop signal end a restart policy",
    ),
    (
        "login",
        "no login by a browser; a configuration that cannot be read is left alone",
    ),
    ("logs --tail", "what is no number is refused"),
    (
        "pull --disable-content-trust",
        "accepted and of no effect: images are not signed",
    ),
    ("push", "in pieces of 5 MiB, each sent again after a cut"),
    (
        "push --disable-content-trust",
        "accepted and of no effect: images are not signed",
    ),
    (
        "push --platform",
        "the platform that the image must be of: it has one alone",
    ),
    ("restart --signal", "what is no signal is refused"),
    (
        "rmi --force",
        "the layers stay while a container needs them",
    ),
    (
        "rmi --no-prune",
        "of no effect: images have no untagged parents",
    ),
    (
        "image prune",
        "takes layers of no image and rubbish too; the space is that on disk",
    ),
    (
        "search",
        "finds images that are here by how their names begin; asks no registry",
    ),
    ("search --filter", "those of `images`"),
    ("stats", "codes that clear lines are written on a pipe too"),
    ("stop", "says when it had to kill"),
    ("stop --signal", "what is no signal is refused"),
    (
        "system df",
        "sizes are those on disk; `-v` has all else that is in ROOT",
    ),
    (
        "system prune",
        "there is no build cache; layers of no image and rubbish go",
    ),
    ("top", "reads /proc, in UTC; `ps` only for options"),
    (
        "update",
        "warnings are on stderr; what the kernel refuses half-way is taken back",
    ),
    (
        "update --memory",
        "without `--memory-swap` swap is as much again",
    ),
    (
        "network create",
        "the first 4,096 networks have 256 addresses each",
    ),
    ("network create --driver", "`bridge` only"),
    (
        "network create --ipv6",
        "without a subnet the next /64 of this host's own /48",
    ),
    (
        "network create --subnet",
        "host bits are refused; one of IPv6 means `--ipv6`",
    ),
    (
        "network disconnect --force",
        "of no effect: an ended container has no endpoints",
    ),
    ("volume create --driver", "`local` only"),
    (
        "volume create --opt",
        "`type=none` with `o=bind` only; such a volume is not filled from the image",
    ),
];
