//! The proxy at the end of its descriptors. Alone in its process, because the limit is the process's.

mod kernel_support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use kernel_support::{hold, on_a_host};
use netmgr::proxy::{Forward, Proxy};
use netmgr::{PortRequest, Protocol};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn out_of_descriptors_it_rests_and_serves_again_later() {
    on_a_host(|| {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let request = PortRequest {
            host_port_last: None,
            protocol: Protocol::Tcp,
            host_ip: None,
            host_port: Some(8080),
            container_port: 80,
            count: 1,
        };
        let address = target.local_addr().unwrap();
        let (_, held) = hold(&request).unwrap();
        let forwards = held.into_iter().map(|held| Forward {
            protocol: Protocol::Tcp,
            listener: held.socket,
            target: address,
            run: None,
        });
        let forwards: Vec<Forward> = forwards.collect();
        let (proxy, control) = Proxy::new(forwards).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| proxy.serve());
            // More than it can accept; each takes two of its descriptors.
            let clients: Vec<TcpStream> = (0..40)
                .map(|_| TcpStream::connect("127.0.0.1:8080").unwrap())
                .collect();
            thread::sleep(Duration::from_millis(100));
            let before = getrlimit(Resource::Nofile);
            let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
            let tight = Rlimit {
                current: Some(open + 3),
                maximum: before.maximum,
            };
            let more: Vec<TcpStream> = (0..2)
                .map(|_| {
                    let stream = TcpStream::connect("127.0.0.1:8080").unwrap();
                    setrlimit(Resource::Nofile, tight).unwrap();
                    stream
                })
                .collect();
            let (start, cpu) = (Instant::now(), cpu_time());
            thread::sleep(Duration::from_millis(600));
            let busy = (cpu_time() - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
            assert!(busy < 0.2, "spins: {:.0} % of a processor", busy * 100.0);

            drop((clients, more));
            setrlimit(Resource::Nofile, before).unwrap();
            // What was given up on is gone; a new client is served.
            thread::spawn(move || {
                for mut stream in target.incoming().flatten() {
                    let _ = stream.write_all(b"x");
                }
            });
            let served = (0..10).any(|_| {
                let mut client = TcpStream::connect("127.0.0.1:8080").unwrap();
                client
                    .set_read_timeout(Some(Duration::from_secs(1)))
                    .unwrap();
                client.read(&mut [0; 1]).is_ok_and(|length| length == 1)
            });
            assert!(served, "never served again");
            control.stop();
        });
    });
}
