//! Redis from the distribution's packages: pushed to a real registry, pulled, run with a published port, and used from everywhere.

use harness::registry::Access;
use harness::{Host, Registry, eventually, images, net};

const REDIS: &str = "run -d --name redis -p 6379:6379";

#[track_caller]
fn start_redis(host: &Host) {
    let registry = Registry::start(host, Access::Open);
    registry.push(&images::redis_layout(), "7", "redis:7");
    let name = registry.image("redis:7");
    let pull = host.run(&format!("pull {name}"));
    assert!(pull.stdout.contains("7: Pulling from redis"), "{pull}");
    assert_eq!(pull.stdout.matches(": Pull complete").count(), 2, "{pull}");
    assert!(pull.stdout.contains("Digest: sha256:"), "{pull}");
    assert!(
        pull.stdout
            .contains(&format!("Status: Downloaded newer image for {name}")),
        "{pull}"
    );
    host.run(&format!("{REDIS} {name}"));
    eventually("redis answers", || {
        let ping = host.tool("redis-cli", ["-h", "192.0.2.1", "PING"]);
        if ping.text() == "PONG" {
            Ok(())
        } else {
            Err(ping)
        }
    });
}

#[test]
fn redis_answers_the_host_by_both_addresses_and_the_neighbour() {
    let host = Host::builder().without_image().build();
    start_redis(&host);
    host.tool("redis-cli", ["-h", "192.0.2.1", "PING"])
        .ok()
        .says("PONG");
    host.tool("redis-cli", ["-h", "127.0.0.1", "PING"])
        .ok()
        .says("PONG");
    harness::Cmd::new("redis-cli")
        .args(["-h", "192.0.2.1", "PING"])
        .run_in(&host.neighbour)
        .ok()
        .says("PONG");
    // The second layer: a file put over the first, and one of the first taken away.
    host.run("exec redis cat /etc/redis/coracle.conf");
    host.try_run("exec redis ls /etc/motd").exits(2);
    host.run("exec redis redis-cli PING").says("PONG");
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn a_hundred_thousand_sets_and_gets_from_the_neighbour_lose_nothing() {
    const KEYS: usize = 100_000;
    const CONNECTIONS: usize = 4;
    let host = Host::builder().without_image().build();
    start_redis(&host);
    let keys: Vec<String> = (0..KEYS).map(|number| format!("key:{number}")).collect();
    let right: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = keys
            .chunks(KEYS / CONNECTIONS)
            .map(|keys| {
                scope.spawn(|| {
                    let mut redis =
                        net::Redis::connect(&host.neighbour, "192.0.2.1:6379").expect("connect");
                    redis.set_and_get(keys, 100).expect("set and get")
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker"))
            .sum()
    });
    assert_eq!(right, 2 * KEYS, "a SET and a GET of each key");
    host.run("exec redis redis-cli DBSIZE").says("100000");
}
