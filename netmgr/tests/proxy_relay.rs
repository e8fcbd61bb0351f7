//! The loopback proxy from the outside: held ports, real sockets, one thread.

mod kernel_support;

use std::io::{self, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket,
};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use kernel_support::{hold, on_a_host};
use netmgr::proxy::{Forward, Proxy};
use netmgr::{PortRequest, Protocol};
use rustix::thread::Pid;

const PORT: u16 = 8080;

/// Publishes PORT of every address to `target` while `test` runs.
fn published(protocol: Protocol, target: SocketAddr, test: impl FnOnce()) {
    published_by(protocol, target, |_| test());
}

/// The same; `test` is told the proxy's thread.
fn published_by(protocol: Protocol, target: SocketAddr, test: impl FnOnce(Pid)) {
    let request = PortRequest {
        host_port_last: None,
        protocol,
        host_ip: None,
        host_port: Some(PORT),
        container_port: target.port(),
        count: 1,
    };
    let (_, held) = hold(&request).unwrap();
    let forwards = held
        .into_iter()
        .map(|held| Forward {
            protocol,
            listener: held.socket,
            target,
            run: None,
        })
        .collect();
    let (proxy, control) = Proxy::new(forwards).unwrap();
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let serving = thread::Builder::new()
            .stack_size(64 << 10)
            .spawn_scoped(scope, move || {
                tell.send(rustix::thread::gettid()).unwrap();
                proxy.serve();
            })
            .unwrap();
        test(told.recv().unwrap());
        assert!(!serving.is_finished(), "the proxy gave up");
        control.stop();
    });
}

/// Serves each connection on a thread of its own, in the namespace of the caller.
fn server(serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn echo() -> SocketAddr {
    server(|mut stream| {
        let mut back = stream.try_clone()?;
        io::copy(&mut stream, &mut back)?;
        back.shutdown(Shutdown::Write)
    })
}

fn call(address: impl ToSocketAddrs) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
}

fn exchange(address: impl ToSocketAddrs, words: &[u8]) {
    let mut stream = call(address);
    stream.write_all(words).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert_eq!(back, words);
}

/// Bytes without a period that a lost or doubled block could hide in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// How much processor time a thread has used, in clock ticks of 10 ms (`proc(5)`, stat: utime and stime).
fn ticks(thread: Pid) -> u64 {
    let path = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    let stat = std::fs::read_to_string(path).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let times = after_name.split_whitespace().skip(11).take(2);
    times.map(|time| time.parse::<u64>().unwrap()).sum()
}

#[test]
fn local_clients_of_both_families_reach_an_ipv4_container() {
    on_a_host(|| {
        published(Protocol::Tcp, echo(), || {
            exchange(("127.0.0.1", PORT), b"four");
            exchange(("::1", PORT), b"six");
            exchange(("127.8.9.10", PORT), b"any of 127/8");
        });
    });
}

#[test]
fn thousand_connections_in_a_row_leave_no_descriptor_behind() {
    on_a_host(|| {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        published(Protocol::Tcp, echo(), || {
            exchange(("127.0.0.1", PORT), b"warm");
            for _ in 0..1000 {
                exchange(("127.0.0.1", PORT), b"again");
            }
            // Other tests of this process have some open as well.
            let start = Instant::now();
            while open() > 200 {
                assert!(
                    start.elapsed() < Duration::from_secs(10),
                    "{} are open",
                    open()
                );
                thread::sleep(Duration::from_millis(20));
            }
        });
    });
}

#[test]
fn many_connections_at_once_are_all_served() {
    on_a_host(|| {
        published(Protocol::Tcp, echo(), || {
            let mut streams: Vec<TcpStream> = (0..100).map(|_| call(("127.0.0.1", PORT))).collect();
            for (n, stream) in streams.iter_mut().enumerate() {
                stream.write_all(format!("{n:04}").as_bytes()).unwrap();
            }
            for (n, stream) in streams.iter_mut().enumerate() {
                let mut back = [0; 4];
                stream.read_exact(&mut back).unwrap();
                assert_eq!(back, format!("{n:04}").as_bytes());
            }
        });
    });
}

#[test]
fn either_side_may_finish_first_and_still_listen() {
    on_a_host(|| {
        // Answers only after the client has finished, and then by what it had said.
        let after = server(|mut stream| {
            let mut said = String::new();
            stream.read_to_string(&mut said)?;
            stream.write_all(said.to_uppercase().as_bytes())
        });
        published(Protocol::Tcp, after, || {
            let mut stream = call(("127.0.0.1", PORT));
            stream.write_all(b"client first").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "CLIENT FIRST");
        });
        // Finishes at once, and goes on listening.
        let (heard, hears) = mpsc::channel();
        let before = server(move |mut stream| {
            stream.write_all(b"hello")?;
            stream.shutdown(Shutdown::Write)?;
            let mut said = String::new();
            stream.read_to_string(&mut said)?;
            heard.send(said).map_err(io::Error::other)
        });
        published(Protocol::Tcp, before, || {
            let mut stream = call(("127.0.0.1", PORT));
            let mut greeting = String::new();
            stream.read_to_string(&mut greeting).unwrap();
            assert_eq!(greeting, "hello");
            stream.write_all(b"server first").unwrap();
            drop(stream);
            let said = hears.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(said, "server first");
        });
    });
}

#[test]
fn large_transfer_both_ways_is_intact() {
    on_a_host(|| {
        published(Protocol::Tcp, echo(), || {
            let sent = noise(48 << 20);
            let mut stream = call(("127.0.0.1", PORT));
            let mut writer = stream.try_clone().unwrap();
            let start = Instant::now();
            let back = thread::scope(|scope| {
                scope.spawn(|| {
                    writer.write_all(&sent).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut back = Vec::with_capacity(sent.len());
                stream.read_to_end(&mut back).unwrap();
                back
            });
            let rate = sent.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
            println!("{rate:.0} MB/s each way");
            assert!(
                back == sent,
                "{} of {} bytes, or others",
                back.len(),
                sent.len()
            );
        });
    });
}

#[test]
fn slow_reader_blocks_no_other_and_costs_no_cpu_time() {
    on_a_host(|| {
        let endless = server(|mut stream| {
            loop {
                stream.write_all(&[7; 65536])?;
            }
        });
        published_by(Protocol::Tcp, endless, |proxy| {
            let slow: Vec<TcpStream> = (0..8).map(|_| call(("127.0.0.1", PORT))).collect();
            // One of them has also said its last word, and its hang-up is nothing to spin on.
            slow[0].shutdown(Shutdown::Write).unwrap();
            thread::sleep(Duration::from_millis(300));
            let mut quick = call(("127.0.0.1", PORT));
            quick.read_exact(&mut vec![0; 8 << 20]).unwrap();
            drop(quick);
            thread::sleep(Duration::from_millis(200));
            let before = ticks(proxy);
            thread::sleep(Duration::from_millis(500));
            let used = ticks(proxy) - before;
            assert!(used <= 5, "spins: {used} of 50 ticks");
        });
    });
}

#[test]
fn refused_connection_is_reset_and_the_next_one_served() {
    on_a_host(|| {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = gone.local_addr().unwrap();
        drop(gone);
        published(Protocol::Tcp, target, || {
            for _ in 0..20 {
                let error = call(("127.0.0.1", PORT)).read(&mut [0; 1]).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
            let listener = TcpListener::bind(target).unwrap();
            thread::spawn(move || listener.accept().unwrap().0.write_all(b"here").unwrap());
            let mut answer = String::new();
            call(("127.0.0.1", PORT))
                .read_to_string(&mut answer)
                .unwrap();
            assert_eq!(answer, "here");
        });
    });
}

#[test]
fn answer_arrives_whole_though_the_server_resets() {
    on_a_host(|| {
        // Closes with the request unread: the kernel follows the answer with a reset.
        let rude = server(|mut stream| {
            stream.write_all(b"answer")?;
            thread::sleep(Duration::from_millis(100));
            Ok(())
        });
        published(Protocol::Tcp, rude, || {
            let mut stream = call(("127.0.0.1", PORT));
            stream.write_all(b"a request that is never read").unwrap();
            let mut answer = [0; 6];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"answer");
        });
    });
}

#[test]
fn udp_answers_come_from_the_address_that_was_called() {
    on_a_host(|| {
        let target = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = target.local_addr().unwrap();
        thread::spawn(move || {
            let mut data = vec![0; 65536];
            while let Ok((length, from)) = target.recv_from(&mut data) {
                let _ = target.send_to(&data[..length], from);
            }
        });
        published(Protocol::Udp, address, || {
            let unconnected = UdpSocket::bind("0.0.0.0:0").unwrap();
            unconnected
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            // One client calls several addresses: it must be able to tell their answers apart.
            for called in ["127.0.0.1", "127.0.0.9", "127.9.0.1", "127.9.0.2"] {
                let called = SocketAddr::new(called.parse().unwrap(), PORT);
                unconnected
                    .send_to(called.to_string().as_bytes(), called)
                    .unwrap();
                let mut data = [0; 64];
                let (length, from) = unconnected.recv_from(&mut data).unwrap();
                assert_eq!(from, called);
                assert_eq!(&data[..length], called.to_string().as_bytes());
            }
            let six = UdpSocket::bind("[::1]:0").unwrap();
            six.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            six.connect(("::1", PORT)).unwrap();
            // As large as UDP allows.
            let large = noise(65_507);
            six.send(&large).unwrap();
            let mut data = vec![0; 65536];
            let length = six.recv(&mut data).unwrap();
            assert!(data[..length] == large);
        });
    });
}

#[test]
fn udp_client_waits_for_a_server_that_starts_late() {
    on_a_host(|| {
        let target = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = target.local_addr().unwrap();
        drop(target);
        published(Protocol::Udp, address, || {
            let client = UdpSocket::bind((IpAddr::from(Ipv4Addr::LOCALHOST), 0)).unwrap();
            client.connect(("127.0.0.1", PORT)).unwrap();
            for _ in 0..5 {
                client.send(b"early").unwrap();
                thread::sleep(Duration::from_millis(10));
            }
            let target = UdpSocket::bind(address).unwrap();
            target
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            client.send(b"late").unwrap();
            let mut data = [0; 8];
            let length = target.recv(&mut data).unwrap();
            assert_eq!(&data[..length], b"late");
        });
    });
}

#[test]
fn stop_ends_it_at_once_and_frees_the_ports() {
    on_a_host(|| {
        let endless = server(|mut stream| {
            loop {
                stream.write_all(&[7; 65536])?;
            }
        });
        let mut held = None;
        published(Protocol::Tcp, endless, || {
            held = Some(call(("127.0.0.1", PORT)));
        });
        TcpStream::connect(("127.0.0.1", PORT)).unwrap_err();
        TcpListener::bind(("0.0.0.0", PORT)).unwrap();
    });
}
