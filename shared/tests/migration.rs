//! Moving connections between two ends of a migration link: real sockets, both sides in one
//! process, and a peer that stops in the middle.

#![expect(clippy::unwrap_used, reason = "a test may panic wherever it likes")]

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use handoff::link::{self, Link};
use handoff::migrate::{
    Extent, Frozen, Heir, Kind, Links, Moved, Post, Returned, Roster, Seat, Snapshot, Source,
    Target,
};
use handoff::{Connections, Peer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};

const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes far too long")
}

/// A worker whose connections answer each byte with their worker's letter.
#[derive(Clone)]
struct Worker {
    letter: u8,
    roster: Roster,
    served: Arc<AtomicUsize>,
}

impl Worker {
    fn serve(&self, stream: UnixStream) {
        let seat = self.roster.seat();
        self.served.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(echo(stream, Some(seat), self.letter));
    }

    /// Serves one that will never be asked again.
    fn keep(&self, stream: UnixStream) {
        self.served.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(echo(stream, None, self.letter));
    }
}

/// Answers every byte; after an `s` it says `b` and is busy until the next one.
async fn echo(mut stream: UnixStream, seat: Option<Seat>, letter: u8) {
    let wanted = || {
        std::future::poll_fn(|context| match &seat {
            Some(seat) => seat.poll_wanted(context),
            None => std::task::Poll::Pending,
        })
    };
    loop {
        let mut byte = [0];
        tokio::select! {
            biased;
            () = wanted() => break,
            read = stream.read(&mut byte) => if !matches!(read, Ok(1)) { return },
        }
        if byte[0] == b's' {
            stream.write_all(b"b").await.unwrap();
            wanted().await;
            if let Some(seat) = &seat {
                seat.busy();
            }
            stream.read_exact(&mut byte).await.unwrap();
        }
        stream.write_all(&[letter]).await.unwrap();
    }
    if let Some(seat) = seat {
        let descriptor: OwnedFd = stream.into_std().unwrap().into();
        seat.give(Frozen::connection(descriptor, snapshot(), None));
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        kind: Kind::Http1,
        peer: Peer::Unix,
        read: vec![],
        unsent: vec![],
        version: 1,
        state: b"state".to_vec(),
    }
}

fn thaw(frozen: Frozen) -> UnixStream {
    assert_eq!(frozen.snapshot, snapshot());
    UnixStream::from_std(StdStream::from(frozen.descriptor)).unwrap()
}

/// An incumbent with connections, and what moves them.
struct Incumbent {
    worker: Worker,
    extent: watch::Sender<Extent>,
    moved: watch::Receiver<Moved>,
    links: Links,
    clients: Vec<UnixStream>,
}

impl Incumbent {
    fn with(connections: usize) -> Self {
        let (extent, wanted) = watch::channel(Extent::Nothing);
        let (source, roster, links, moved) = Source::new(wanted, Post::default());
        let worker = Worker { letter: b'i', roster, served: Arc::default() };
        let back = worker.clone();
        tokio::spawn(source.run(move |frozen, returned| match returned {
            Returned::Aborted => back.serve(thaw(frozen)),
            Returned::Rejected => back.keep(thaw(frozen)),
        }));
        let mut clients = Vec::new();
        for _ in 0..connections {
            let (client, server) = UnixStream::pair().unwrap();
            worker.serve(server);
            clients.push(client);
        }
        Self { worker, extent, moved, links, clients }
    }

    /// Gives the source its end of a migration link; the other end is the answer.
    fn link(&self) -> Link {
        let (ours, theirs) = link::pair().unwrap();
        self.links.introduce(Link::new(ours).unwrap());
        Link::new(theirs).unwrap()
    }

    /// Who answers each client.
    async fn answers(&mut self) -> Vec<u8> {
        let mut answers = Vec::new();
        for client in &mut self.clients {
            client.write_all(b"?").await.unwrap();
            let mut answer = [0];
            soon(client.read_exact(&mut answer)).await.unwrap();
            answers.push(answer[0]);
        }
        answers
    }

    async fn until(&self, holds: impl FnMut(&Moved) -> bool) -> Moved {
        *soon(self.moved.clone().wait_for(holds)).await.unwrap()
    }
}

fn successor() -> Worker {
    let (_, roster, ..) = Source::new(watch::channel(Extent::Nothing).1, Post::default());
    Worker { letter: b's', roster, served: Arc::default() }
}

fn receive(worker: &Worker, link: Link) -> oneshot::Sender<()> {
    let (reaped, wait) = oneshot::channel();
    let worker = worker.clone();
    tokio::spawn(async move {
        let resume = move |frozen| worker.serve(thaw(frozen));
        let reaped = async { wait.await.unwrap_or_default() };
        // Whether the link broke or ended makes no difference here.
        let _ = Target::new(link, Post::default()).run(resume, reaped).await;
    });
    reaped
}

/// A peer that is driven by hand.
struct ByHand(Link);

impl ByHand {
    async fn hear(&self) -> (Value, Vec<OwnedFd>) {
        let received = soon(self.0.receive::<Value>()).await.unwrap().unwrap();
        (received.message, received.descriptors)
    }

    async fn say(&self, word: Value) {
        self.0.send(&word, &[]).await.unwrap();
    }
}

#[tokio::test]
async fn every_connection_moves_and_its_next_byte_is_answered_by_the_successor() {
    let mut incumbent = Incumbent::with(300);
    assert_eq!(incumbent.answers().await, vec![b'i'; 300]);
    let successor = successor();
    let _reaped = receive(&successor, incumbent.link());
    incumbent.extent.send_replace(Extent::Everything);
    soon(incumbent.worker.roster.emptied()).await;
    assert_eq!(incumbent.answers().await, vec![b's'; 300]);
    let moved = incumbent.until(|moved| moved.moved.http == 300).await;
    assert_eq!((moved.rejected, moved.lost), (0, Connections::default()));
}

#[tokio::test]
async fn a_canary_is_eight_connections_and_the_others_stay_until_everything_is_wanted() {
    let mut incumbent = Incumbent::with(100);
    let successor = successor();
    let _reaped = receive(&successor, incumbent.link());
    incumbent.extent.send_replace(Extent::Canary);
    incumbent.until(|moved| moved.moved.http == 8).await;
    let answers = incumbent.answers().await;
    assert_eq!(answers.iter().filter(|letter| **letter == b's').count(), 8);
    incumbent.extent.send_replace(Extent::Everything);
    soon(incumbent.worker.roster.emptied()).await;
    assert_eq!(incumbent.answers().await, vec![b's'; 100]);
}

#[tokio::test]
async fn a_busy_connection_moves_when_it_is_done_and_holds_nobody_up() {
    let mut incumbent = Incumbent::with(10);
    incumbent.clients[0].write_all(b"s").await.unwrap();
    let mut answer = [0];
    soon(incumbent.clients[0].read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, *b"b", "it is busy before it is wanted");
    let successor = successor();
    let _reaped = receive(&successor, incumbent.link());
    incumbent.extent.send_replace(Extent::Everything);
    incumbent.until(|moved| moved.moved.http == 9).await;
    incumbent.clients[0].write_all(b"!").await.unwrap();
    soon(incumbent.clients[0].read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, *b"i", "the incumbent finishes what it began");
    soon(incumbent.worker.roster.emptied()).await;
    assert_eq!(incumbent.answers().await, vec![b's'; 10]);
}

#[tokio::test]
async fn a_client_that_leaves_while_its_connection_is_wanted_is_counted_out() {
    let mut incumbent = Incumbent::with(10);
    let link = incumbent.link();
    incumbent.clients.truncate(5);
    let successor = successor();
    let _reaped = receive(&successor, link);
    incumbent.extent.send_replace(Extent::Everything);
    soon(incumbent.worker.roster.emptied()).await;
    assert_eq!(incumbent.answers().await, vec![b's'; 5]);
}

/// One that will not take the second connection it is offered.
struct Picky {
    worker: Worker,
    offered: Arc<AtomicUsize>,
}

impl Heir for Picky {
    fn judge(&mut self, _snapshot: &Snapshot) -> Result<(), String> {
        match self.offered.fetch_add(1, Ordering::Relaxed) {
            1 => Err("a state of version 9".into()),
            _ => Ok(()),
        }
    }

    fn resume(&mut self, frozen: Frozen) {
        self.worker.serve(thaw(frozen));
    }
}

#[tokio::test]
async fn a_connection_that_the_successor_will_not_take_stays_and_is_not_asked_again() {
    let mut incumbent = Incumbent::with(3);
    let link = incumbent.link();
    let worker = successor();
    let offered = Arc::new(AtomicUsize::new(0));
    let picky = Picky { worker, offered: Arc::clone(&offered) };
    tokio::spawn(Target::new(link, Post::default()).run(picky, std::future::ready(())));
    incumbent.extent.send_replace(Extent::Everything);
    let moved = incumbent.until(|moved| moved.moved.http == 2).await;
    assert_eq!(moved.rejected, 1);
    let answers = incumbent.answers().await;
    assert_eq!(answers.iter().filter(|letter| **letter == b'i').count(), 1);
    assert_eq!(offered.load(Ordering::Relaxed), 3, "it was offered again");
}

#[tokio::test]
async fn a_successor_that_dies_before_the_commit_costs_nothing() {
    let mut incumbent = Incumbent::with(5);
    let by_hand = ByHand(incumbent.link());
    incumbent.extent.send_replace(Extent::Everything);
    let (offer, descriptors) = by_hand.hear().await;
    assert_eq!((offer["type"].as_str(), descriptors.len()), (Some("offer"), 6));
    drop((descriptors, by_hand));
    incumbent.until(|moved| !moved.linked).await;
    assert_eq!(incumbent.answers().await, vec![b'i'; 5]);
}

#[tokio::test]
async fn what_was_committed_to_a_successor_that_dies_is_counted_as_lost() {
    let incumbent = Incumbent::with(5);
    let by_hand = ByHand(incumbent.link());
    incumbent.extent.send_replace(Extent::Everything);
    let (_, descriptors) = by_hand.hear().await;
    by_hand.say(json!({"type": "prepared", "seq": 1})).await;
    let (commit, _) = by_hand.hear().await;
    assert_eq!(commit, json!({"type": "commit", "seq": 1}));
    drop((descriptors, by_hand));
    let moved = incumbent.until(|moved| !moved.linked).await;
    assert_eq!(moved.lost.http, 5);
    assert_eq!(incumbent.worker.roster.present(), 0);
}

#[tokio::test]
async fn a_move_that_is_called_off_thaws_its_connections_and_is_said_to_be() {
    let mut incumbent = Incumbent::with(5);
    let by_hand = ByHand(incumbent.link());
    incumbent.extent.send_replace(Extent::Canary);
    let (_, descriptors) = by_hand.hear().await;
    incumbent.extent.send_replace(Extent::Nothing);
    let (abort, _) = by_hand.hear().await;
    assert_eq!(abort, json!({"type": "abort", "seq": 1}));
    // The other side only closes.
    drop(descriptors);
    assert_eq!(incumbent.answers().await, vec![b'i'; 5]);
    // A late answer to the aborted offer changes nothing.
    by_hand.say(json!({"type": "prepared", "seq": 1})).await;
    incumbent.extent.send_replace(Extent::Everything);
    let (offer, _) = by_hand.hear().await;
    assert_eq!((offer["type"].as_str(), offer["seq"].as_u64()), (Some("offer"), Some(2)));
}

#[tokio::test]
async fn a_successor_that_does_not_answer_gets_nothing_and_its_connections_are_served_again() {
    let mut incumbent = Incumbent::with(5);
    let by_hand = ByHand(incumbent.link());
    incumbent.extent.send_replace(Extent::Everything);
    let (_, held) = by_hand.hear().await;
    incumbent.until(|moved| !moved.linked).await;
    assert_eq!(incumbent.answers().await, vec![b'i'; 5]);
    let (abort, _) = by_hand.hear().await;
    assert_eq!(abort, json!({"type": "abort", "seq": 1}));
    drop(held);
}

#[tokio::test]
async fn at_most_two_offers_wait_for_an_answer() {
    let incumbent = Incumbent::with(400);
    let by_hand = ByHand(incumbent.link());
    incumbent.extent.send_replace(Extent::Everything);
    let mut held = Vec::new();
    for seq in 1..=2 {
        let (offer, descriptors) = by_hand.hear().await;
        assert_eq!((offer["type"].as_str(), offer["seq"].as_u64()), (Some("offer"), Some(seq)));
        held.push(descriptors);
    }
    by_hand.say(json!({"type": "prepared", "seq": 1})).await;
    let (commit, _) = by_hand.hear().await;
    assert_eq!(commit, json!({"type": "commit", "seq": 1}), "a third offer came before an answer");
    by_hand.say(json!({"type": "started", "seq": 1})).await;
    let (offer, _) = by_hand.hear().await;
    assert_eq!((offer["type"].as_str(), offer["seq"].as_u64()), (Some("offer"), Some(3)));
}

#[tokio::test]
async fn prepared_connections_are_the_successors_once_the_incumbent_is_dead_and_reaped() {
    let (ours, theirs) = link::pair().unwrap();
    let successor = successor();
    let reaped = receive(&successor, Link::new(theirs).unwrap());
    let by_hand = ByHand(Link::new(ours).unwrap());
    let mut incumbent = Incumbent::with(1);
    // The incumbent hangs from here on: it neither thaws nor closes anything.
    let hanging = forward_an_offer(&incumbent, &by_hand.0).await;
    let (prepared, _) = by_hand.hear().await;
    assert_eq!(prepared["type"], "prepared");
    let mut client = incumbent.clients.remove(0);
    drop((by_hand, incumbent, hanging));
    client.write_all(b"?").await.unwrap();
    let mut answer = [0];
    let early = tokio::time::timeout(Duration::from_millis(50), client.read_exact(&mut answer));
    assert!(early.await.is_err(), "it was served while the incumbent might still serve it");
    reaped.send(()).unwrap();
    soon(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, *b"s");
}

/// Has the incumbent make an offer, and passes it on over another link.
async fn forward_an_offer(incumbent: &Incumbent, link: &Link) -> ByHand {
    let tap = ByHand(incumbent.link());
    incumbent.extent.send_replace(Extent::Everything);
    let (offer, descriptors) = tap.hear().await;
    let descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    link.send(&offer, &descriptors).await.unwrap();
    tap
}

#[tokio::test]
async fn an_offer_that_cannot_be_read_is_rejected_whole() {
    let (ours, theirs) = link::pair().unwrap();
    let successor = successor();
    let _reaped = receive(&successor, Link::new(theirs).unwrap());
    let by_hand = ByHand(Link::new(ours).unwrap());
    by_hand.say(json!({"type": "offer", "seq": 9, "count": 2})).await;
    let (prepared, _) = by_hand.hear().await;
    assert_eq!(prepared["rejected"].as_array().map(Vec::len), Some(2));
    by_hand.say(json!({"type": "commit", "seq": 9})).await;
    let (started, _) = by_hand.hear().await;
    assert_eq!(started, json!({"type": "started", "seq": 9}));
}
