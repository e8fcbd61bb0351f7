//! A responder over a container's namespace, clients inside of it, and fake servers to forward to.
#![allow(dead_code)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use netmgr::Netns;
use netmgr::dns::{self, Config, Listening, Reach, Source, Upstreams, Zone};
use netmgr::kernel::netns;
use netmgr::plan::Tool;

pub const RESPONDER: SocketAddr = SocketAddr::new(IpAddr::V4(dns::ADDRESS), 53);

/// No answer takes this long unless it never comes.
pub const SOON: Duration = Duration::from_secs(10);

pub const TOOLS: [Option<Tool>; 3] = [Some(Tool::Iptables), Some(Tool::Nft), None];

/// A container's namespace with only `lo` in it.
pub fn container() -> Netns {
    let netns = netns::create().unwrap();
    netns::loopback_up(&netns).unwrap();
    netns
}

pub fn listen(container: &Netns, tool: Option<Tool>) -> Listening {
    let listening = dns::listen(container, tool).unwrap();
    let expect = match tool {
        Some(_) => Reach::Redirected,
        None => Reach::Bound,
    };
    assert_eq!(listening.reach, expect, "{tool:?}");
    listening
}

/// Runs `test` while a responder serves; and then stops it, which must not take long whatever is under way.
pub fn served(
    listening: Listening,
    upstreams: Vec<SocketAddr>,
    source: impl Source + Send,
    test: impl FnOnce(),
) {
    let config = Config {
        upstreams: Upstreams::Fixed(upstreams),
    };
    let (stop, stopper) = io::pipe().unwrap();
    thread::scope(|scope| {
        let serving = thread::Builder::new()
            .stack_size(128 << 10)
            .spawn_scoped(scope, move || {
                dns::serve(listening, config, source, stop.into());
            })
            .unwrap();
        test();
        assert!(!serving.is_finished(), "the responder gave up");
        let start = Instant::now();
        drop(stopper);
        serving.join().unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "stopping took {:?}",
            start.elapsed()
        );
    });
}

/// A responder for a new container, over rules of iptables.
pub fn with_zone(zone: Zone, upstreams: Vec<SocketAddr>, test: impl FnOnce(&Netns)) {
    let container = container();
    let listening = listen(&container, Some(Tool::Iptables));
    served(listening, upstreams, fixed(zone), || test(&container));
}

pub fn fixed(zone: Zone) -> impl FnMut() -> Result<Arc<Zone>, netmgr::Error> + Send {
    let zone = Arc::new(zone);
    move || Ok(zone.clone())
}

pub fn name(container_name: &str, aliases: &[&str], last: u8) -> dns::Name {
    dns::Name {
        container_id: format!("{last:02x}").repeat(32),
        container_name: container_name.into(),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        address: Ipv4Addr::new(10, 9, 0, last),
        address6: None,
    }
}

/// A zone of one network, `shop`.
pub fn shop(internal: bool, containers: Vec<dns::Name>) -> Zone {
    Zone::new(vec![dns::NetworkNames {
        name: "shop".into(),
        internal,
        named: true,
        containers,
    }])
}

pub fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

pub fn with_payload(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

/// A UDP socket of a program in `netns`.
pub fn udp(netns: &Netns, server: SocketAddr) -> UdpSocket {
    let socket = netns::run_in(netns, || UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

pub fn tcp(netns: &Netns, server: SocketAddr) -> TcpStream {
    let stream = netns::run_in(netns, || TcpStream::connect(server).unwrap()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Sends and receives bytes by UDP.
pub fn exchange(netns: &Netns, bytes: &[u8]) -> Vec<u8> {
    let socket = udp(netns, RESPONDER);
    socket.send(bytes).unwrap();
    receive(&socket)
}

pub fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 16];
    let length = socket.recv(&mut buffer).expect("no answer");
    buffer.truncate(length);
    buffer
}

pub fn ask(netns: &Netns, question: &Message) -> Message {
    let answer = exchange(netns, &question.to_vec().unwrap());
    checked(question, &answer)
}

pub fn ask_tcp(netns: &Netns, question: &Message) -> Message {
    let mut stream = tcp(netns, RESPONDER);
    write_framed(&mut stream, &question.to_vec().unwrap());
    checked(question, &read_framed(&mut stream))
}

/// An answer must be to the question.
pub fn checked(question: &Message, answer: &[u8]) -> Message {
    let answer = Message::from_vec(answer).unwrap();
    assert_eq!(answer.metadata.id, question.metadata.id);
    assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
    assert_eq!(answer.queries, question.queries);
    answer
}

pub fn write_framed(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap();
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).unwrap();
}

pub fn read_framed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    message
}

/// The addresses of an answer, in its order.
pub fn addresses(answer: &Message) -> Vec<String> {
    let texts = answer.answers.iter().map(|record| {
        assert_eq!(record.ttl, 600);
        record.data.to_string()
    });
    texts.collect()
}

/// A good answer's addresses, sorted.
pub fn resolve(netns: &Netns, name: &str, kind: RecordType) -> Vec<String> {
    let answer = ask(netns, &question(name, kind));
    assert_eq!(
        answer.metadata.response_code,
        ResponseCode::NoError,
        "{name}"
    );
    let mut addresses = addresses(&answer);
    addresses.sort();
    addresses
}

pub fn code(netns: &Netns, name: &str) -> ResponseCode {
    ask(netns, &question(name, RecordType::A))
        .metadata
        .response_code
}

/// A server to forward to, which counts what it is asked.
pub struct Fake {
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Fake {
    /// On 127.0.0.1 of the calling thread's namespace, by UDP and TCP. `answer` gets the question and gives all that is
    /// sent back, one datagram each.
    pub fn new(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Fake {
        Fake::on("127.0.0.1:0".parse().unwrap(), answer)
    }

    pub fn on(
        address: SocketAddr,
        answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Fake {
        let tcp = TcpListener::bind(address).unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        // A thousand questions at once fit: what is lost on the way is not what the tests are about.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&udp, 4 << 20).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(answer);
        let (count, answer_tcp) = (asked.clone(), answer.clone());
        // Both live as long as the test's process: there is nobody to end them, and they hold nothing that others need.
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                for reply in answer(&buffer[..length]) {
                    let _ = udp.send_to(&reply, client);
                }
            }
        });
        let count = asked.clone();
        thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let question = read_framed(&mut stream);
                // In pieces, as a network may deliver it.
                for reply in answer_tcp(&question) {
                    let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
                    for piece in [
                        &length[..1],
                        &length[1..],
                        &reply[..reply.len() / 2],
                        &reply[reply.len() / 2..],
                    ] {
                        let _ = stream.write_all(piece);
                        let _ = stream.flush();
                    }
                }
            }
        });
        Fake { address, asked }
    }

    /// Answers every question with this address.
    pub fn with_address(last: u8) -> Fake {
        Fake::new(move |question| vec![answer_with(question, last)])
    }

    /// Hears and says nothing.
    pub fn silent() -> Fake {
        Fake::new(|_| Vec::new())
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

pub fn reply_to(question: &[u8]) -> Message {
    let mut reply = Message::from_vec(question).unwrap().into_response();
    reply.metadata.recursion_available = true;
    reply
}

pub fn answer_with(question: &[u8], last: u8) -> Vec<u8> {
    let mut reply = reply_to(question);
    let name = reply.queries[0].name().clone();
    let data = RData::A(Ipv4Addr::new(192, 0, 2, last).into());
    reply.add_answer(Record::from_rdata(name, 600, data));
    reply.to_vec().unwrap()
}

pub fn error_with(question: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut reply = reply_to(question);
    reply.metadata.response_code = code;
    reply.to_vec().unwrap()
}

pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}
