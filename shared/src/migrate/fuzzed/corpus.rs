//! What was really written, to begin with: a file for each message, and one for each blob of snapshots.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use super::super::post::{Text, Word};
use super::super::snapshot::{self, Kind, Snapshot};
use super::super::wire::{Rejected, ToSource, ToTarget};
use crate::acceptor::Peer;
use crate::message::{
    Connections, Drain, Drained, GenerationId, Hello, Newcomers, OldestWork, OrphanEnded, PROTOCOL,
    Ready, Report, SocketEntry, ToFront, ToWorker,
};
use crate::rescue::{Incumbent, Rescue, Rescued, Standing};

fn directory(of: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "corpus", of].iter().collect()
}

/// The entries, by their names.
pub(super) fn corpus(of: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory(of)).expect("the corpus is there");
    let mut corpus: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    corpus.sort();
    assert!(!corpus.is_empty(), "there is nothing to begin with");
    corpus
}

pub(super) fn contents(of: &str) -> Vec<Vec<u8>> {
    corpus(of).into_iter().map(|(_, bytes)| bytes).collect()
}

#[test]
#[ignore = "writes today's entries into the source tree"]
fn the_corpus_is_written_anew() {
    write("hello-with-rescue", &hello());
    write("admit", &ToWorker::Admit);
    write("stop-accepting", &ToWorker::StopAccepting);
    write("lease", &ToWorker::Lease { epoch: 41 });
    write("drain", &ToWorker::Drain(Drain { timeout_ms: 30_000, newcomers: Newcomers::Leave }));
    write("tell-how-you-are", &ToWorker::Report);
    write("migrate-to", &ToWorker::MigrateTo { successor: GenerationId::new(8) });
    write("migrate-from", &ToWorker::MigrateFrom { incumbent: GenerationId::new(7) });
    write("reaped", &ToWorker::Reaped { generation: GenerationId::new(7) });
    let ended = OrphanEnded { pid: 42, code: Some(3), signal: None };
    write("orphan-ended", &ToWorker::OrphanEnded(ended));
    write("ready-for-orphans-and-no-pause", &ready());
    write("failing", &ToFront::Failing { conditions: vec!["state-directory".into()] });
    write("refuse", &ToFront::Refuse { reason: "the front speaks protocol 9".into() });
    write("extend", &ToFront::Extend { timeout_ms: 30_000 });
    write("accepting", &ToFront::Accepting);
    write("stopped", &ToFront::Stopped);
    write("drained-with-sessions", &drained());
    write("report", &report());
    write("rescue", &ToWorker::Rescue(Rescue { protocol: PROTOCOL }));
    write("rescued", &rescued());
    write("offer", &ToTarget::Offer { seq: 3, count: 64 });
    write("commit", &ToTarget::Commit { seq: 3 });
    write("abort", &ToTarget::Abort { seq: 3 });
    write("prepared-together", &prepared());
    write("started", &ToSource::Started { seq: 3 });
    let text = || Text::Inside("event operator.read\n{\"type\":\"event\"".into());
    for (name, post) in [
        ("late", Word::Late { mailbox: 7, text: text() }),
        ("late-and-long", Word::Late { mailbox: 7, text: Text::Attached }),
        ("late-together", Word::LateTogether { mailboxes: vec![7, 8], text: text() }),
        ("severed-moves", Word::Severed { mailbox: 7, moves: 1 }),
        ("lost", Word::Lost { mailbox: 7 }),
        ("settled", Word::Settled { mailboxes: vec![7, 8] }),
        ("publish", Word::Publish { text: text() }),
        ("tell", Word::Tell { text: text() }),
    ] {
        write(name, &ToTarget::Post { post: vec![post] });
    }
    for (name, snapshots) in [
        ("one-with-a-mailbox", vec![(calling(), Some(7))]),
        ("three-with-mailboxes", vec![(idle(), None), (calling(), Some(7)), (half_a_head(), None)]),
    ] {
        let blob =
            snapshot::encode(snapshots.iter().map(|(snapshot, mailbox)| (snapshot, *mailbox, 1)));
        fs::write(directory("snapshot").join(format!("{name}.bin")), blob).unwrap();
    }
    let blob = snapshot::encode([(&session(), None, 5), (&session(), None, 4)].into_iter());
    fs::write(directory("snapshot").join("two-sessions.bin"), blob).unwrap();
}

fn write(name: &str, message: &impl Serialize) {
    let packet = serde_json::to_vec(message).unwrap();
    fs::write(directory("link").join(format!("{name}.json")), packet).unwrap();
}

fn hello() -> ToWorker {
    let socket = |address: &str, shard| SocketEntry { address: address.into(), shard };
    ToWorker::Hello(Hello {
        protocol: PROTOCOL,
        generation: GenerationId::new(8),
        sockets: vec![socket("127.0.0.1:18789", 0), socket("unix:/run/holdfast.sock", 1)],
        ready_timeout_ms: 60_000,
        drain_timeout_ms: 30_000,
        max_connections: Some(10_000),
        rescue: Some("/run/holdfast/control.sock.rescue".into()),
    })
}

fn rescued() -> ToFront {
    let drain = Drain { timeout_ms: 29_000, newcomers: Newcomers::Leave };
    ToFront::Rescued(Rescued {
        generation: GenerationId::new(8),
        age_ms: 60_000,
        standing: Standing::Draining(drain),
        lease: None,
        latest_epoch: 41,
        sockets: vec![SocketEntry { address: "[::1]:18789".into(), shard: 0 }],
        hears_of_orphans: true,
        stops_only_by_draining: false,
        incumbent: Some(Incumbent { generation: GenerationId::new(7), linked: true }),
    })
}

fn ready() -> ToFront {
    ToFront::Ready(Ready {
        program: "holdfast-worker 0.1.0".into(),
        free_descriptors: 1_048_000,
        greeting: vec!["the token lies in ~/.holdfast/token".into()],
        hears_of_orphans: true,
        stops_only_by_draining: true,
    })
}

fn drained() -> ToFront {
    ToFront::Drained(Drained {
        moved: Connections { http: 20, websocket: 192 },
        sessions: 3,
        finished: Connections { http: 3, websocket: 0 },
        closed: Connections { http: 1, websocket: 2 },
        cut: Connections::default(),
    })
}

fn report() -> ToFront {
    ToFront::Report(Report {
        connections: Connections { http: 20, websocket: 192 },
        in_flight: 2,
        oldest: Some(OldestWork { what: "POST /v1/chat/completions".into(), age_ms: 1_700 }),
    })
}

fn prepared() -> ToSource {
    let rejected = |index, reason: &str, later| Rejected { index, reason: reason.into(), later };
    ToSource::Prepared {
        seq: 3,
        rejected: vec![
            rejected(0, "its state has version 2, and 1 is known here", false),
            rejected(63, "the successor may open no more descriptors", true),
        ],
        late_together: true,
    }
}

fn idle() -> Snapshot {
    Snapshot {
        kind: Kind::Http1,
        peer: Peer::Tcp("127.0.0.1:40312".parse().unwrap()),
        read: vec![],
        unsent: vec![],
        version: 1,
        state: vec![],
    }
}

fn half_a_head() -> Snapshot {
    let read = b"POST /v1/chat/completions HTTP/1.1\r\nhost: suite\r\nconte".to_vec();
    Snapshot { peer: Peer::Tcp("[::1]:40313".parse().unwrap()), read, ..idle() }
}

/// A program that runs on.
fn session() -> Snapshot {
    let state = br#"{"version":1,"pid":42}"#;
    Snapshot { kind: Kind::Session, state: state.to_vec(), peer: Peer::Unix, ..idle() }
}

/// The worker's own words about it are its own business; these are some.
fn calling() -> Snapshot {
    let state = br#"{"stage":"connected","protocol":4,"seq":7,"tick_in_ms":1000}"#;
    Snapshot {
        kind: Kind::WebSocket,
        peer: Peer::Unix,
        // The beginning of a masked frame, and of a message that is sent.
        read: vec![0x81, 0xfe, 0x01, 0x2c, 0x0a, 0x0b],
        unsent: [&[0x81, 0x7d][..], &[b'x'; 125]].concat(),
        version: 1,
        state: state.to_vec(),
    }
}
