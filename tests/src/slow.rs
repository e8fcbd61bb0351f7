//! A network that is slower than the machine: a proxy in front of a server, so that what takes a moment on loopback takes long enough to be
//! cut short in its middle.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Netns;

const CHUNK: usize = 16 * 1024;

/// Forwards to a server of the same namespace until dropped.
#[derive(Debug)]
pub struct Slow<'a> {
    /// `127.0.0.1:PORT`
    pub address: String,
    inside: &'a Netns,
    stop: Arc<AtomicBool>,
}

impl<'a> Slow<'a> {
    /// After each 16 KiB that a connection brings from the server, it rests.
    #[track_caller]
    pub fn start(inside: &'a Netns, server: &'static str, rest: Duration) -> Slow<'a> {
        let stop = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&stop);
        // Threads stay in the namespace in which they are made: setns(2) changes the calling one alone.
        let address = inside.enter(move || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
            let address = listener.local_addr().expect("a bound socket").to_string();
            std::thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    if end.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::spawn(move || forward(client, server, rest));
                }
            });
            address
        });
        Slow {
            address,
            inside,
            stop,
        }
    }
}

impl Drop for Slow<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread waits in accept(2): one more connection wakes it.
        self.inside
            .enter(|| drop(TcpStream::connect(&self.address)));
    }
}

/// Both ways of one connection. Whatever goes wrong is the end of it, as on a network.
fn forward(client: TcpStream, server: &str, rest: Duration) {
    let Ok(server) = TcpStream::connect(server) else {
        return;
    };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let (Ok(asks), Ok(takes)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    std::thread::spawn(move || copy(asks, takes, Duration::ZERO));
    copy(server, client, rest);
}

fn copy(mut from: TcpStream, mut to: TcpStream, rest: Duration) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
        std::thread::sleep(rest);
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
