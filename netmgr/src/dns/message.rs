//! DNS messages, by hickory-proto: what a question asks, the zone's answer to it, and the errors. Pure.

use std::net::IpAddr;

use hickory_proto::op::{
    Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use rand::seq::SliceRandom;

use super::zone::Zone;

/// Docker's own.
const TTL: u32 = 600;

/// The longest UDP answer without EDNS (RFC 1035, 4.2.1).
const PLAIN_UDP: usize = 512;

/// And with it, whatever the client would take. Beyond 16 KiB names could not be pointers any more.
const LONG_UDP: usize = 4096;

/// What we are ready to take by UDP, told to clients that speak EDNS; the value of DNS Flag Day 2020.
const OWN_PAYLOAD: u16 = 1232;

/// How a question came, which bounds how long its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// A question that can be answered.
#[derive(Debug)]
pub(super) struct Question {
    metadata: Metadata,
    query: Query,
    /// What the client takes by UDP; `None`: it does not speak EDNS.
    payload: Option<u16>,
}

/// What a message from a client is.
#[derive(Debug)]
pub(super) enum Received {
    Question(Question),
    /// Cannot be answered; this says so.
    Wrong(Vec<u8>),
    /// Not a question. To answer it could make two servers talk to each other for ever.
    Ignored,
}

pub(super) fn read(bytes: &[u8]) -> Received {
    let Ok(header) = Header::read(&mut BinDecoder::new(bytes)) else {
        return Received::Ignored;
    };
    if header.metadata.message_type == MessageType::Response {
        return Received::Ignored;
    }
    let wrong = |code| {
        let reply = reply_to(&header.metadata, code);
        reply.to_vec().map_or(Received::Ignored, Received::Wrong)
    };
    if header.metadata.op_code != OpCode::Query {
        return wrong(ResponseCode::NotImp);
    }
    if header.counts.queries != 1 {
        return wrong(ResponseCode::FormErr);
    }
    let Ok(mut message) = Message::from_vec(bytes) else {
        return wrong(ResponseCode::FormErr);
    };
    let Some(query) = message.queries.pop() else {
        return wrong(ResponseCode::FormErr);
    };
    Received::Question(Question {
        metadata: message.metadata,
        query,
        payload: message.edns.as_ref().map(Edns::max_payload),
    })
}

/// The zone's answer. `None`: the zone has nothing to do with the name.
///
/// A name of the zone is answered whatever the type asked for, if only by nothing: it must not go to the outside.
pub(super) fn answer(zone: &Zone, question: &Question, transport: Transport) -> Option<Vec<u8>> {
    let mut answers = find(zone, &question.query)?;
    if question.query.query_class() != DNSClass::IN {
        answers.clear();
    }
    // Those who share an alias share the clients too: most clients take the first address.
    answers.shuffle(&mut rand::rng());
    let limit = match transport {
        Transport::Udp => usize::from(question.payload.unwrap_or(0)).clamp(PLAIN_UDP, LONG_UDP),
        Transport::Tcp => usize::from(u16::MAX),
    };
    let mut reply = reply(question, ResponseCode::NoError);
    let longest = answers.iter().map(record_length).max().unwrap_or(0);
    let room = limit.saturating_sub(reply.to_vec().map_or(limit, |empty| empty.len()));
    if longest > 0 && room / longest < answers.len() {
        answers.truncate(room / longest);
        // By TCP there is no longer answer to be had.
        reply.metadata.truncation = transport == Transport::Udp;
    }
    let name = question.query.name();
    let records = answers
        .into_iter()
        .map(|data| Record::from_rdata(name.clone(), TTL, data));
    reply.add_answers(records);
    reply.to_vec().ok().or_else(|| failed(question))
}

/// SERVFAIL.
pub(super) fn failed(question: &Question) -> Option<Vec<u8>> {
    reply(question, ResponseCode::ServFail).to_vec().ok()
}

/// Whether `answer` is one to `question`, by its ID and by what it repeats of the question; and if so, its code.
pub(super) fn matches(question: &[u8], answer: &[u8]) -> Option<ResponseCode> {
    let (asked, wanted) = head(question)?;
    let (told, repeated) = head(answer)?;
    let code = told.metadata.response_code;
    let same = match repeated {
        Some(repeated) => Some(repeated) == wanted,
        // Some servers repeat nothing in an error.
        None => code != ResponseCode::NoError,
    };
    let is_answer = told.metadata.message_type == MessageType::Response
        && told.metadata.id == asked.metadata.id;
    (is_answer && same).then_some(code)
}

/// The header and the question, if there is one; not the rest, which may be long, and unknown to us.
fn head(bytes: &[u8]) -> Option<(Header, Option<Query>)> {
    let mut decoder = BinDecoder::new(bytes);
    let header = Header::read(&mut decoder).ok()?;
    let query = match header.counts.queries {
        0 => None,
        1 => Some(Query::read(&mut decoder).ok()?),
        _ => return None,
    };
    Some((header, query))
}

fn find(zone: &Zone, query: &Query) -> Option<Vec<RData>> {
    if let Ok(network) = query.name().parse_arpa_name()
        && network.prefix_len() == network.max_prefix_len()
    {
        let name = zone.reverse(network.addr())?;
        let wanted = matches!(query.query_type(), RecordType::PTR | RecordType::ANY);
        // A container may have a longer name than DNS allows.
        let name = Name::from_ascii(name + ".").ok().filter(|_| wanted);
        return Some(name.map(|name| RData::PTR(PTR(name))).into_iter().collect());
    }
    let name = query.name().to_ascii();
    let found = zone.look_up(name.strip_suffix('.').unwrap_or(&name))?;
    let v4 = found.v4.into_iter().map(|address| RData::A(A(address)));
    let v6 = found
        .v6
        .into_iter()
        .map(|address| RData::AAAA(AAAA(address)));
    Some(match query.query_type() {
        RecordType::A => v4.collect(),
        RecordType::AAAA => v6.collect(),
        RecordType::ANY => v4.chain(v6).collect(),
        _ => Vec::new(),
    })
}

/// With its name, which is a pointer to the question's (RFC 1035, 4.1.4): 12 bytes and the data.
fn record_length(data: &RData) -> usize {
    12 + match data.ip_addr() {
        Some(IpAddr::V4(_)) => 4,
        Some(IpAddr::V6(_)) => 16,
        None => 255,
    }
}

fn reply(question: &Question, code: ResponseCode) -> Message {
    let mut reply = reply_to(&question.metadata, code);
    reply.add_query(question.query.clone());
    if question.payload.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(OWN_PAYLOAD);
        reply.set_edns(edns);
    }
    reply
}

fn reply_to(asked: &Metadata, code: ResponseCode) -> Message {
    let mut reply = Message::response(asked.id, asked.op_code);
    reply.metadata = Metadata::response_from_request(asked);
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply
}
