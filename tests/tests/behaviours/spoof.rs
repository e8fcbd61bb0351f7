//! Datagrams under an address that is not the sender's own, and a listener that keeps what arrives.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use harness::{Netns, eventually};

pub struct Listener {
    socket: UdpSocket,
}

impl Listener {
    pub fn start(inside: &Netns, port: u16) -> Listener {
        let socket = inside
            .enter(|| UdpSocket::bind(("::", port)))
            .expect("bind a UDP port");
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a time limit");
        Listener { socket }
    }

    /// All that came, each word once, up to the word that is waited for.
    #[track_caller]
    pub fn until(&self, last: &str) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(10);
        let mut words: Vec<String> = Vec::new();
        while Instant::now() < end {
            let mut data = [0; 64];
            if let Ok((count, _)) = self.socket.recv_from(&mut data) {
                let word = String::from_utf8_lossy(&data[..count]).into_owned();
                if !words.contains(&word) {
                    words.push(word);
                }
                if words.iter().any(|word| word == last) {
                    return words;
                }
            }
        }
        panic!("{last} has not come, only {words:?}");
    }
}

/// Sends a word from `source`, which the sender's own kernel is made to believe in.
pub fn send(from: &Netns, source: IpAddr, to: SocketAddr, word: &str) {
    let length = if source.is_ipv4() { 32 } else { 128 };
    let own = from.enter(|| UdpSocket::bind((source, 0)).is_ok());
    if !own {
        from.ip(&format!("addr add {source}/{length} dev lo\n"));
    }
    // The kernel may take a moment to make a new IPv6 address usable.
    let socket = eventually("an address just added", || {
        from.enter(|| UdpSocket::bind((source, 0)))
    });
    // A first datagram may be lost while a neighbour is looked up.
    for _ in 0..3 {
        let _ = from.enter(|| socket.send_to(word.as_bytes(), to));
        std::thread::sleep(Duration::from_millis(20));
    }
    if !own {
        from.ip(&format!("addr del {source}/{length} dev lo\n"));
    }
}
