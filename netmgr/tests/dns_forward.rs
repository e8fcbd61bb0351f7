//! What is not in the zone goes to the upstream servers, from the host's side; and does not where it must not.

mod dns_support;
mod kernel_support;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dns_support::*;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType::A;
use kernel_support::{on_a_host, run};
use netmgr::dns::{self, Config, Upstreams, Zone};
use netmgr::kernel::{links, netns};
use netmgr::{Error, Netns};

fn open() -> Zone {
    shop(false, vec![name("web", &[], 2)])
}

fn closed() -> Zone {
    shop(true, vec![name("web", &[], 2)])
}

/// Joins the calling host (10.77.0.1) to a new machine (10.77.0.2).
fn neighbour() -> Netns {
    let machine = container();
    run("ip link add up0 type veth peer name up1");
    run("ip address add 10.77.0.1/24 dev up0");
    run("ip link set up0 up");
    let path = format!("/proc/{}/fd/{}", std::process::id(), machine.0.as_raw_fd());
    run(&format!("ip link set up1 netns {path}"));
    kernel_support::run_inside(&machine, "ip address add 10.77.0.2/24 dev up1");
    kernel_support::run_inside(&machine, "ip link set up1 up");
    assert!(links::list().unwrap().iter().any(|link| link.name == "up0"));
    machine
}

/// An address of this host where nobody listens.
fn nobody() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Each costs a descriptor, twice: here and in the responder.
fn many_descriptors() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
}

#[test]
fn unknown_names_go_out_and_back_byte_for_byte() {
    on_a_host(|| {
        let machine = neighbour();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = seen.clone();
        let fake = netns::run_in(&machine, || {
            Fake::on("10.77.0.2:53".parse().unwrap(), move |question| {
                note.lock().unwrap().push(question.to_vec());
                // With something after the message's end that no parser would write again.
                vec![[&answer_with(question, 1)[..], b"tail"].concat()]
            })
        })
        .unwrap();
        with_zone(open(), vec![fake.address], |container| {
            let asked = with_payload(question("WWW.example.org.", A), 4096);
            let bytes = asked.to_vec().unwrap();
            for (turn, expect) in [answer_with(&bytes, 1), answer_with(&bytes, 1)]
                .iter()
                .enumerate()
            {
                let answer = exchange(container, &bytes);
                assert_eq!(answer, [&expect[..], b"tail"].concat());
                let seen = seen.lock().unwrap();
                assert_eq!(seen[turn][2..], bytes[2..], "changed on the way out");
            }
            let ids: Vec<_> = seen.lock().unwrap().iter().map(|q| [q[0], q[1]]).collect();
            assert_ne!(ids[0], ids[1], "the client's own, or a counter's");
            let by_tcp = ask_tcp(container, &question("www.example.org.", A));
            assert_eq!(by_tcp.answers[0].data.to_string(), "192.0.2.1");
            assert_eq!(resolve(container, "web.", A), ["10.9.0.2"]);
        });
        assert_eq!(fake.asked(), 3, "a container's name went to the outside");
    });
}

#[test]
fn host_that_takes_no_packets_in_does_not_stand_between() {
    on_a_host(|| {
        let machine = neighbour();
        let fake = netns::run_in(&machine, || {
            Fake::on("10.77.0.2:53".parse().unwrap(), |question| {
                vec![answer_with(question, 1)]
            })
        })
        .unwrap();
        run("iptables -P INPUT DROP");
        with_zone(open(), vec![fake.address], |container| {
            assert_eq!(resolve(container, "web.", A), ["10.9.0.2"]);
            // What any host does that wants to resolve names itself.
            run("iptables -A INPUT -i up0 -m conntrack --ctstate ESTABLISHED -j ACCEPT");
            assert_eq!(resolve(container, "example.org.", A), ["192.0.2.1"]);
            let by_tcp = ask_tcp(container, &question("example.org.", A));
            assert_eq!(by_tcp.answers.len(), 1);
        });
    });
}

#[test]
fn internal_networks_send_nothing_out() {
    on_a_host(|| {
        let fake = Fake::with_address(1);
        with_zone(closed(), vec![fake.address], |container| {
            for one in [
                "example.org.",
                "other.",
                "web.other.",
                "9.9.9.9.in-addr.arpa.",
            ] {
                assert_eq!(code(container, one), ResponseCode::ServFail, "{one}");
                let by_tcp = ask_tcp(container, &question(one, A));
                assert_eq!(
                    by_tcp.metadata.response_code,
                    ResponseCode::ServFail,
                    "{one}"
                );
            }
            assert_eq!(resolve(container, "web.", A), ["10.9.0.2"]);
        });
        assert_eq!(fake.asked(), 0);
    });
}

#[test]
fn unreadable_zone_sends_nothing_out() {
    on_a_host(|| {
        let fake = Fake::with_address(1);
        let container = container();
        let listening = listen(&container, None);
        let broken =
            || -> Result<Arc<Zone>, Error> { Err(Error::NetworkNotFound("whatever".into())) };
        served(listening, vec![fake.address], broken, || {
            assert_eq!(code(&container, "web."), ResponseCode::ServFail);
        });
        assert_eq!(fake.asked(), 0);
    });
}

#[test]
fn silent_server_is_passed_over_and_holds_nobody_up() {
    on_a_host(|| {
        let (silent, good) = (Fake::silent(), Fake::with_address(1));
        with_zone(open(), vec![silent.address, good.address], |container| {
            let start = Instant::now();
            let slow = udp(container, RESPONDER);
            let asked = question("example.org.", A);
            slow.send(&asked.to_vec().unwrap()).unwrap();
            wait_until("nobody was asked", || silent.asked() == 1);
            for _ in 0..100 {
                assert_eq!(resolve(container, "web.", A), ["10.9.0.2"]);
            }
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "{:?}",
                start.elapsed()
            );
            assert_eq!(addresses(&checked(&asked, &receive(&slow))), ["192.0.2.1"]);
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "a client asks again after 5 s"
            );
        });
    });
}

#[test]
fn only_server_is_asked_again_and_then_given_up() {
    on_a_host(|| {
        let silent = Fake::silent();
        with_zone(open(), vec![silent.address], |container| {
            let start = Instant::now();
            assert_eq!(code(container, "example.org."), ResponseCode::ServFail);
            assert!(
                start.elapsed() > Duration::from_secs(5),
                "{:?}",
                start.elapsed()
            );
        });
        assert_eq!(silent.asked(), 2);
    });
}

#[test]
fn late_answer_of_the_only_server_is_taken() {
    on_a_host(|| {
        let late = Fake::new(|question| {
            thread::sleep(Duration::from_millis(3500));
            vec![answer_with(question, 1)]
        });
        with_zone(open(), vec![late.address], |container| {
            let start = Instant::now();
            assert_eq!(resolve(container, "example.org.", A), ["192.0.2.1"]);
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{:?}",
                start.elapsed()
            );
        });
    });
}

#[test]
fn servers_that_refuse_or_are_not_there_are_passed_over_at_once() {
    on_a_host(|| {
        let refuses = Fake::new(|question| vec![error_with(question, ResponseCode::Refused)]);
        let fails = Fake::new(|question| vec![error_with(question, ResponseCode::ServFail)]);
        let good = Fake::with_address(1);
        let start = Instant::now();
        for bad in [
            nobody(),
            refuses.address,
            fails.address,
            "[fe80::1%4096]:53".parse().unwrap(),
        ] {
            with_zone(open(), vec![bad, good.address], |container| {
                assert_eq!(
                    resolve(container, "example.org.", A),
                    ["192.0.2.1"],
                    "{bad}"
                );
                let by_tcp = ask_tcp(container, &question("example.org.", A));
                assert_eq!(by_tcp.answers.len(), 1, "{bad}");
            });
        }
        with_zone(open(), vec![refuses.address], |container| {
            assert_eq!(code(container, "example.org."), ResponseCode::Refused);
        });
        with_zone(open(), vec![nobody()], |container| {
            assert_eq!(code(container, "example.org."), ResponseCode::ServFail);
            let by_tcp = ask_tcp(container, &question("example.org.", A));
            assert_eq!(by_tcp.metadata.response_code, ResponseCode::ServFail);
        });
        with_zone(open(), vec![], |container| {
            assert_eq!(code(container, "example.org."), ResponseCode::ServFail);
        });
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
    });
}

#[test]
fn servers_by_ipv6_are_asked_too() {
    on_a_host(|| {
        let fake = Fake::on("[::1]:0".parse().unwrap(), |question| {
            vec![answer_with(question, 6)]
        });
        with_zone(open(), vec![fake.address], |container| {
            assert_eq!(resolve(container, "example.org.", A), ["192.0.2.6"]);
            let by_tcp = ask_tcp(container, &question("example.org.", A));
            assert_eq!(by_tcp.answers.len(), 1);
        });
    });
}

#[test]
fn denial_of_the_first_server_is_final() {
    on_a_host(|| {
        let denies = Fake::new(|question| vec![error_with(question, ResponseCode::NXDomain)]);
        let other = Fake::with_address(1);
        with_zone(open(), vec![denies.address, other.address], |container| {
            assert_eq!(code(container, "example.org."), ResponseCode::NXDomain);
        });
        assert_eq!(other.asked(), 0);
    });
}

#[test]
fn only_the_answer_to_the_question_is_taken() {
    on_a_host(|| {
        let confused = Fake::new(|asked| {
            let mut other_id = answer_with(asked, 2);
            other_id[0] ^= 1;
            let elsewhere = question("other.org.", A).to_vec().unwrap();
            let mut other_name = answer_with(&elsewhere, 3);
            other_name[..2].copy_from_slice(&asked[..2]);
            let mut no_question = Message::from_vec(&answer_with(asked, 4)).unwrap();
            no_question.queries.clear();
            let no_question = no_question.to_vec().unwrap();
            let question_back = asked.to_vec();
            vec![
                other_id,
                other_name,
                no_question,
                question_back,
                asked[..7].to_vec(),
                Vec::new(),
                answer_with(asked, 1),
            ]
        });
        with_zone(open(), vec![confused.address], |container| {
            assert_eq!(resolve(container, "example.org.", A), ["192.0.2.1"]);
        });
    });
}

#[test]
fn cut_answers_are_passed_on_and_long_ones_come_by_tcp() {
    on_a_host(|| {
        let long = Fake::new(|question| {
            let mut reply = reply_to(question);
            let one = Message::from_vec(&answer_with(question, 1))
                .unwrap()
                .answers;
            let wants_all = question[12] == b"\x03"[0];
            reply.metadata.truncation = !wants_all;
            reply.add_answers(
                one.into_iter()
                    .cycle()
                    .take(if wants_all { 2000 } else { 1 }),
            );
            vec![reply.to_vec().unwrap()]
        });
        with_zone(open(), vec![long.address], |container| {
            let cut = ask(container, &question("cuts.org.", A));
            assert!(cut.metadata.truncation);
            let whole = ask_tcp(container, &question("all.org.", A));
            assert_eq!(whole.answers.len(), 2000);
        });
    });
}

#[test]
fn thousand_questions_at_once_are_all_forwarded() {
    on_a_host(|| {
        many_descriptors();
        let slow = Fake::silent();
        let good = Fake::with_address(1);
        with_zone(open(), vec![slow.address, good.address], |container| {
            let asked = question("example.org.", A);
            let bytes = asked.to_vec().unwrap();
            let sockets: Vec<UdpSocket> = netns::run_in(container, || {
                (0..1000)
                    .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
                    .collect()
            })
            .unwrap();
            for (index, socket) in sockets.iter().enumerate() {
                socket.connect(RESPONDER).unwrap();
                socket.set_read_timeout(Some(SOON)).unwrap();
                socket.send(&bytes).unwrap();
                if index % 50 == 49 {
                    // Neither side's socket may overflow: datagrams are lost then, and it is not the responder that
                    // loses them.
                    wait_until("questions are lost", || slow.asked() > index);
                }
            }
            // One after the other they would take 3,000 seconds.
            assert_eq!(resolve(container, "web.", A), ["10.9.0.2"]);
            for socket in &sockets {
                assert_eq!(addresses(&checked(&asked, &receive(socket))), ["192.0.2.1"]);
            }
        });
    });
}

#[test]
fn oldest_question_makes_room_when_too_many_wait() {
    on_a_host(|| {
        many_descriptors();
        // Given up by the clock after 9 seconds.
        let (silent, mute, deaf) = (Fake::silent(), Fake::silent(), Fake::silent());
        let servers = vec![silent.address, mute.address, deaf.address];
        with_zone(open(), servers, |container| {
            let ask = |number: usize, socket: &UdpSocket| {
                let asked = question(&format!("n{number}.org."), A);
                socket.send(&asked.to_vec().unwrap()).unwrap();
                asked
            };
            let first = udp(container, RESPONDER);
            let asked = ask(0, &first);
            wait_until("the first question is lost", || silent.asked() == 1);
            let others = udp(container, RESPONDER);
            for number in 1..1100 {
                ask(number, &others);
                if number % 50 == 0 {
                    wait_until("questions are lost", || silent.asked() > number);
                }
            }
            let failed = checked(&asked, &receive(&first));
            assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
            assert_eq!(deaf.asked(), 0, "given up by the clock");
        });
    });
}

#[test]
fn hosts_servers_are_followed_when_they_change() {
    on_a_host(|| {
        // Both on port 53, which is what a resolv.conf means.
        let first = Fake::on("127.0.0.53:53".parse().unwrap(), |q| {
            vec![answer_with(q, 1)]
        });
        let second = Fake::on("127.0.0.54:53".parse().unwrap(), |q| {
            vec![answer_with(q, 2)]
        });
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 127.0.0.53\noptions edns0 trust-ad\n").unwrap();
        let container = container();
        let listening = listen(&container, None);
        let config = Config {
            upstreams: Upstreams::Host(path.clone()),
        };
        let (stop, stopper) = std::io::pipe().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| dns::serve(listening, config, fixed(open()), stop.into()));
            let _stopper = stopper;
            assert_eq!(resolve(&container, "example.org.", A), ["192.0.2.1"]);
            std::fs::write(&path, "nameserver 127.0.0.54\n").unwrap();
            assert_eq!(resolve(&container, "example.org.", A), ["192.0.2.2"]);
        });
        assert_eq!((first.asked(), second.asked()), (1, 1));
    });
}

#[test]
fn client_that_hangs_up_is_forgotten_with_its_questions() {
    on_a_host(|| {
        let silent = Fake::silent();
        with_zone(open(), vec![silent.address], |container| {
            let mut stream = tcp(container, RESPONDER);
            write_framed(&mut stream, &question("example.org.", A).to_vec().unwrap());
            wait_until("nobody was asked", || silent.asked() == 1);
            drop(stream);
            let after = ask_tcp(container, &question("web.", A));
            assert_eq!(addresses(&after), ["10.9.0.2"]);
        });
    });
}
