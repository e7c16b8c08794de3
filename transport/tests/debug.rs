//! Debug output of messages, which may end up in a log: it shows the lengths of payloads, and no
//! byte of them.

use bytes::Bytes;
use quorate_raft::{
    Append, BatchBuilder, Body, ForwardedCommand, Index, Kind, Message, Propose, ProposeReply, SnapshotChunk, Term,
    session::{Request, SessionKey},
};
use quorate_transport::codec::{Encoder, Limits};

const SECRET: &str = "PAYLOAD-OF-A-CALLER";

#[test]
fn the_debug_output_of_a_message_shows_no_payload() {
    let bytes = Bytes::from_static(SECRET.as_bytes());
    let command = ForwardedCommand { request: 1, length: 19, kind: Kind::Command, waits_ms: 1 };
    let mut builder = BatchBuilder::new(|_, _| 0, Term(1), Index(1), 0, 100);
    builder.push(Kind::Command, &bytes);
    hides(&builder);
    let batch = builder.finish().expect("an entry");
    batch.records().for_each(|record| hides(&record));
    let append = Append {
        epoch: 1,
        previous: quorate_raft::EntryId::default(),
        previous_checksum: None,
        commit: Index(0),
        batch: Some(batch),
    };
    let chunk = SnapshotChunk { epoch: 1, snapshot: Box::default(), offset: 0, bytes: bytes.clone() };
    for body in [
        Body::Append(append),
        Body::Propose(Propose { commands: vec![command], payloads: bytes.clone() }),
        Body::ProposeReply(ProposeReply { outcomes: Vec::new(), replies: bytes.clone() }),
        Body::SnapshotChunk(chunk),
    ] {
        let message = Message { term: Term(1), body };
        hides(&message);
        hides(&Encoder::new(Limits::default()).message(&message));
    }
    let key = SessionKey::named(SECRET.as_bytes()).expect("short");
    hides(&key);
    hides(&Request::Command { key, serial: 1, command: &bytes });
}

fn hides(value: &impl std::fmt::Debug) {
    let shown = format!("{value:?} {value:#?}");
    let listed = SECRET.bytes().take(4).map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    assert!(!shown.contains(SECRET) && !shown.contains(&listed), "{shown}");
}
