//! A container's responder, asked from inside the container: what it knows by itself.

mod dns_support;
mod kernel_support;

use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, TcpListener, UdpSocket};
use std::time::Duration;

use dns_support::*;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType::{A, AAAA, MX, PTR, TXT};
use kernel_support::on_a_host;
use netmgr::dns::Zone;
use netmgr::kernel::netns;
use netmgr::plan::Tool;

fn zone() -> Zone {
    let mut db = name("db", &["shared"], 3);
    db.address6 = Some(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 3));
    shop(true, vec![name("Web", &["front", "Shared"], 2), db])
}

#[test]
fn names_are_answered_however_port_53_is_reached() {
    on_a_host(|| {
        for tool in TOOLS {
            let container = container();
            let listening = listen(&container, tool);
            served(listening, vec![], fixed(zone()), || {
                for one in [
                    "web.",
                    "WEB.",
                    "front.",
                    "web.shop.",
                    "020202020202.",
                    "Front.Shop.",
                ] {
                    assert_eq!(resolve(&container, one, A), ["10.9.0.2"], "{one} {tool:?}");
                    let by_tcp = ask_tcp(&container, &question(one, A));
                    assert_eq!(addresses(&by_tcp), ["10.9.0.2"], "{one} {tool:?}");
                }
                assert_eq!(resolve(&container, "shared.", A), ["10.9.0.2", "10.9.0.3"]);
                assert_eq!(resolve(&container, "db.", AAAA), ["fd00:9::3"]);
            });
        }
    });
}

#[test]
fn name_without_such_a_record_is_there_but_empty() {
    on_a_host(|| {
        let fake = Fake::with_address(1);
        let mut zone = shop(false, vec![name("web", &[], 2)]);
        assert!(zone.forwards());
        with_zone(std::mem::take(&mut zone), vec![fake.address], |container| {
            for kind in [AAAA, MX, TXT] {
                assert_eq!(resolve(container, "web.", kind), [""; 0], "{kind}");
            }
            assert_eq!(resolve(container, "2.0.9.10.in-addr.arpa.", A), [""; 0]);
        });
        assert_eq!(fake.asked(), 0, "a container's name went to the outside");
    });
}

#[test]
fn addresses_lead_back_to_names() {
    on_a_host(|| {
        with_zone(zone(), vec![], |container| {
            let v4 = resolve(container, "2.0.9.10.IN-ADDR.arpa.", PTR);
            assert_eq!(v4, ["Web.shop."]);
            let v6 = "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6.arpa.";
            assert_eq!(resolve(container, v6, PTR), ["db.shop."]);
            assert_eq!(
                code(container, "0.9.10.in-addr.arpa."),
                ResponseCode::ServFail
            );
        });
    });
}

#[test]
fn clients_are_spread_over_those_who_share_an_alias() {
    on_a_host(|| {
        let sharing = (1..=3).map(|last| name(&format!("c{last}"), &["all"], last));
        with_zone(shop(true, sharing.collect()), vec![], |container| {
            let mut first = [0; 4];
            for _ in 0..300 {
                let answer = addresses(&ask(container, &question("all.", A)));
                assert_eq!(answer.len(), 3);
                let last: usize = answer[0].rsplit('.').next().unwrap().parse().unwrap();
                first[last] += 1;
            }
            // 100 each on average, with a deviation of 8.
            assert!(first[1..].iter().all(|times| *times > 50), "{first:?}");
        });
    });
}

#[test]
fn containers_own_server_has_port_53_of_every_address() {
    on_a_host(|| {
        for tool in [Tool::Iptables, Tool::Nft] {
            let container = container();
            let listening = listen(&container, Some(tool));
            let (udp_own, tcp_own) = netns::run_in(&container, || {
                (
                    UdpSocket::bind("0.0.0.0:53").unwrap(),
                    TcpListener::bind("0.0.0.0:53").unwrap(),
                )
            })
            .unwrap();
            served(listening, vec![], fixed(zone()), || {
                assert_eq!(resolve(&container, "web.", A), ["10.9.0.2"]);
                assert_eq!(
                    addresses(&ask_tcp(&container, &question("web.", A))),
                    ["10.9.0.2"]
                );

                let local = "127.0.0.1:53".parse().unwrap();
                let client = udp(&container, local);
                client.send(b"for the container's own").unwrap();
                let mut buffer = [0; 64];
                let (length, from) = udp_own.recv_from(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], b"for the container's own");
                udp_own.send_to(b"yes", from).unwrap();
                assert_eq!(receive(&client), b"yes");
                tcp(&container, local);
                tcp_own.accept().unwrap();
            });
        }
    });
}

#[test]
fn responder_may_be_made_anew_in_a_running_container() {
    on_a_host(|| {
        for tool in TOOLS {
            let container = container();
            for _ in 0..3 {
                let listening = listen(&container, tool);
                served(listening, vec![], fixed(zone()), || {
                    assert_eq!(resolve(&container, "web.", A), ["10.9.0.2"], "{tool:?}");
                    assert_eq!(
                        addresses(&ask_tcp(&container, &question("web.", A))),
                        ["10.9.0.2"]
                    );
                });
            }
        }
    });
}

#[test]
fn long_answers_are_cut_for_udp_and_whole_by_tcp() {
    on_a_host(|| {
        let many = (1..=200).map(|last| name(&format!("c{last}"), &["all"], last));
        with_zone(shop(true, many.collect()), vec![], |container| {
            let plain = question("all.", A);
            let bytes = exchange(container, &plain.to_vec().unwrap());
            assert!(bytes.len() <= 512, "{} bytes", bytes.len());
            let cut = checked(&plain, &bytes);
            assert!(
                cut.metadata.truncation && cut.answers.len() > 25,
                "{}",
                cut.answers.len()
            );

            let roomy = ask(container, &with_payload(question("all.", A), 4096));
            assert!(!roomy.metadata.truncation);
            assert_eq!(roomy.answers.len(), 200);
            assert!(roomy.edns.is_some());

            let whole = ask_tcp(container, &plain);
            assert!(!whole.metadata.truncation && whole.edns.is_none());
            assert_eq!(whole.answers.len(), 200);
        });
    });
}

#[test]
fn tcp_questions_come_in_pieces_and_several_at_once() {
    on_a_host(|| {
        with_zone(zone(), vec![], |container| {
            let asked = question("web.", A);
            let bytes = asked.to_vec().unwrap();
            let framed = [&(bytes.len() as u16).to_be_bytes(), &bytes[..]].concat();

            let mut stream = tcp(container, RESPONDER);
            stream.set_nodelay(true).unwrap();
            for byte in &framed {
                stream.write_all(&[*byte]).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(
                addresses(&checked(&asked, &read_framed(&mut stream))),
                ["10.9.0.2"]
            );

            // More than are taken at a time, and the client has said that it asks no more.
            stream.write_all(&framed.repeat(500)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            for _ in 0..500 {
                assert_eq!(
                    addresses(&checked(&asked, &read_framed(&mut stream))),
                    ["10.9.0.2"]
                );
            }
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "left open");
        });
    });
}

#[test]
fn client_that_reads_nothing_holds_nobody_up() {
    on_a_host(|| {
        let many = (1..=200).map(|last| name(&format!("c{last}"), &["all"], last));
        with_zone(shop(true, many.collect()), vec![], |container| {
            let bytes = question("all.", A).to_vec().unwrap();
            let framed = [&(bytes.len() as u16).to_be_bytes(), &bytes[..]].concat();
            let mut greedy = tcp(container, RESPONDER);
            greedy.set_nonblocking(true).unwrap();
            let batch = framed.repeat(1000);
            // Until neither side's buffers take more: about 3 KB come back for each question.
            wait_until("the responder takes questions without end", || {
                (&greedy)
                    .write(&batch)
                    .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
            });
            assert_eq!(resolve(container, "c7.", A), ["10.9.0.7"]);
            greedy.set_nonblocking(false).unwrap();
            for _ in 0..1000 {
                read_framed(&mut greedy);
            }
        });
    });
}

#[test]
fn idle_connections_make_room_for_new_ones() {
    on_a_host(|| {
        with_zone(zone(), vec![], |container| {
            let idle: Vec<_> = (0..200).map(|_| tcp(container, RESPONDER)).collect();
            assert_eq!(
                addresses(&ask_tcp(container, &question("web.", A))),
                ["10.9.0.2"]
            );
            assert_eq!(
                (&idle[0]).read(&mut [0; 1]).unwrap(),
                0,
                "the oldest is closed"
            );
        });
    });
}

#[test]
fn thousand_questions_at_once_are_all_answered() {
    on_a_host(|| {
        with_zone(zone(), vec![], |container| {
            let asked = question("web.", A);
            let bytes = asked.to_vec().unwrap();
            std::thread::scope(|scope| {
                for _ in 0..10 {
                    scope.spawn(|| {
                        let socket = udp(container, RESPONDER);
                        for _ in 0..100 {
                            socket.send(&bytes).unwrap();
                        }
                        for _ in 0..100 {
                            let answer = checked(&asked, &receive(&socket));
                            assert_eq!(addresses(&answer), ["10.9.0.2"]);
                        }
                    });
                }
            });
        });
    });
}

#[test]
fn nonsense_is_survived_and_answers_are_not_answered() {
    on_a_host(|| {
        let fake = Fake::with_address(1);
        with_zone(
            shop(false, vec![name("web", &[], 2)]),
            vec![fake.address],
            |container| {
                let good = with_payload(question("web.", A), 1232).to_vec().unwrap();
                let socket = udp(container, RESPONDER);
                for round in 0..20_000_usize {
                    let bytes: Vec<u8> = match round % 2 {
                        0 => (0..rand::random_range(0..80))
                            .map(|_| rand::random())
                            .collect(),
                        // Almost right: a few bytes of a question changed, or its end missing.
                        _ => {
                            let mut bytes = good.clone();
                            for _ in 0..rand::random_range(1..4) {
                                let at = rand::random_range(0..bytes.len());
                                bytes[at] = rand::random();
                            }
                            bytes.truncate(rand::random_range(1..=bytes.len()));
                            bytes
                        }
                    };
                    let _ = socket.send(&bytes);
                    // Before the socket's buffer is full, as the good question would be lost then.
                    if round % 100 == 0 {
                        assert_eq!(resolve(container, "web.", A), ["10.9.0.2"]);
                    }
                }
                let mut stream = tcp(container, RESPONDER);
                write_framed(&mut stream, &[0xff; 300]);
                write_framed(&mut stream, &[]);
                write_framed(&mut stream, &good);
                let answer = read_framed(&mut stream);
                assert_eq!(answer[..2], good[..2], "the answer to nonsense came first");

                let mut answer = question("web.", A).into_response();
                answer.metadata.id = 7;
                let socket = udp(container, RESPONDER);
                socket.send(&answer.to_vec().unwrap()).unwrap();
                socket.send(&good).unwrap();
                assert_eq!(receive(&socket)[..2], good[..2], "an answer was answered");

                let cut = exchange(container, &good[..good.len() - 3]);
                assert_eq!(
                    (cut[..2].to_vec(), cut[3] & 0xf),
                    (good[..2].to_vec(), 1),
                    "FORMERR"
                );
            },
        );
    });
}
