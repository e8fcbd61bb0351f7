//! Names: a resolver on the LAN, and what a container is told by the server that its /etc/resolv.conf gives.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::Netns;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::talk::{Patience, Protocol};

/// Answers on port 53 of the LAN: `outside.example` is 203.0.113.7, `asker.example` is who asks, and nothing else is there.
pub struct Resolver {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    #[track_caller]
    pub fn start(on: &Netns) -> Resolver {
        let socket = on
            .enter(|| UdpSocket::bind("0.0.0.0:53"))
            .expect("port 53 of a namespace of our own");
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a time limit");
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut data = [0; 1500];
            while !flag.load(Ordering::Relaxed) {
                if let Ok((count, peer)) = socket.recv_from(&mut data)
                    && let Some(answer) = resolve(&data[..count], peer.ip())
                {
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        Resolver {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn resolve(question: &[u8], peer: IpAddr) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?.clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    let address = match (query.name().to_ascii().as_str(), peer) {
        ("outside.example.", _) => Some([203, 0, 113, 7].into()),
        ("asker.example.", IpAddr::V4(peer)) => Some(peer),
        _ => None,
    };
    match address {
        Some(address) if query.query_type() == RecordType::A => {
            let data = RData::A(A(address));
            answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
        }
        Some(_) => {}
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer.add_query(query);
    answer.to_vec().ok()
}

/// What a server says of a name: the answers, sorted, with their time to live; or its refusal.
pub fn ask(
    from: &Netns,
    server: SocketAddr,
    protocol: Protocol,
    name: &str,
    kind: RecordType,
    patience: Patience,
) -> String {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(name).expect("a name");
    message.add_query(Query::query(name, kind));
    let bytes = message.to_vec().expect("a question");
    // A forwarded question takes its time, and its failure a longer one.
    let limit = patience.limit() * 2;
    let heard = match protocol {
        Protocol::Udp => by_udp(from, server, &bytes, limit),
        Protocol::Tcp => by_tcp(from, server, &bytes, limit),
    };
    let answer = match heard.map(|bytes| Message::from_vec(&bytes)) {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return format!("no DNS message: {error}"),
        Err(_) => return "silence".to_owned(),
    };
    let mut found: Vec<_> = answer
        .answers
        .iter()
        .map(|record| {
            format!(
                "{} {} for {} s",
                record.record_type(),
                record.data,
                record.ttl
            )
        })
        .collect();
    found.sort();
    format!("{}: {}", answer.metadata.response_code, found.join(", "))
}

fn by_udp(
    from: &Netns,
    server: SocketAddr,
    question: &[u8],
    limit: Duration,
) -> std::io::Result<Vec<u8>> {
    let socket = from.enter(|| UdpSocket::bind("0.0.0.0:0"))?;
    from.enter(|| socket.connect(server))?;
    socket.set_read_timeout(Some(limit))?;
    socket.send(question)?;
    let mut data = vec![0; 4096];
    let count = socket.recv(&mut data)?;
    data.truncate(count);
    Ok(data)
}

fn by_tcp(
    from: &Netns,
    server: SocketAddr,
    question: &[u8],
    limit: Duration,
) -> std::io::Result<Vec<u8>> {
    let mut stream = from.enter(|| TcpStream::connect_timeout(&server, limit))?;
    stream.set_read_timeout(Some(limit))?;
    let length = u16::try_from(question.len()).expect("a short question");
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut data = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut data)?;
    Ok(data)
}
