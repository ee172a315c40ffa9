//! Letters to connections that move: each is delivered once and in order, wherever it is sent from and
//! wherever the connection is.

#![expect(clippy::unwrap_used, reason = "a test may panic wherever it likes")]

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use handoff::Peer;
use handoff::link::{self, Link, Received};
use handoff::migrate::{
    Delivery, Extent, Frozen, Heir, Home, Kind, Links, Mailbox, Neighbour, Post, Recipient,
    Returned, Roster, Seat, Snapshot, Source, Target,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes far too long")
}

/// What a connection has received, and where: by its number.
type Read = (u64, char, Delivery);

/// A worker that writes down every letter of its connections.
#[derive(Clone)]
struct Worker {
    name: char,
    roster: Roster,
    post: Post,
    read: mpsc::UnboundedSender<Read>,
    told: mpsc::UnboundedSender<(char, Neighbour, String)>,
}

impl Worker {
    fn serve(&self, frozen: Frozen) {
        tokio::spawn(connection(self.clone(), frozen, self.roster.seat()));
    }
}

async fn connection(worker: Worker, frozen: Frozen, seat: Seat) {
    let Frozen { descriptor, snapshot, mailbox, .. } = frozen;
    let number = u64::from_le_bytes(*snapshot.state.first_chunk().unwrap());
    let mut mailbox = mailbox.unwrap();
    let wanted = std::future::poll_fn(|context| seat.poll_wanted(context));
    tokio::pin!(wanted);
    loop {
        tokio::select! {
            biased;
            () = &mut wanted => break,
            delivery = mailbox.next() => {
                // Fails once the test is over.
                let _ = worker.read.send((number, worker.name, delivery));
            }
        }
    }
    seat.give(Frozen::connection(descriptor, snapshot, Some(mailbox)));
}

impl Home for Worker {
    fn resume(&mut self, frozen: Frozen, _returned: Returned) {
        self.serve(frozen);
    }

    fn heard(&mut self, text: &str) {
        self.told.send((self.name, Neighbour::Successor, text.to_owned())).unwrap();
    }
}

impl Heir for Worker {
    fn judge(&mut self, _snapshot: &Snapshot) -> Result<(), String> {
        Ok(())
    }

    fn resume(&mut self, frozen: Frozen) {
        self.serve(frozen);
    }

    fn heard(&mut self, text: &str) {
        self.told.send((self.name, Neighbour::Incumbent, text.to_owned())).unwrap();
    }
}

/// An incumbent `i` with connections that get letters, and a successor `s`.
struct Pair {
    incumbent: Worker,
    successor: Worker,
    extent: watch::Sender<Extent>,
    links: Links,
    /// The same of the successor, for one that comes after it.
    onward: (watch::Sender<Extent>, Links),
    recipients: Vec<Recipient>,
    read: mpsc::UnboundedReceiver<Read>,
    told: mpsc::UnboundedReceiver<(char, Neighbour, String)>,
    _clients: Vec<StdStream>,
}

#[expect(clippy::disallowed_methods, reason = "a test's letters are counted")]
fn unbounded<T>() -> (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>) {
    mpsc::unbounded_channel()
}

impl Pair {
    fn with(connections: u64) -> Self {
        Self::keeping(connections, Post::default())
    }

    fn keeping(connections: u64, post: Post) -> Self {
        let (read_by, read) = unbounded();
        let (told_by, told) = unbounded();
        let (extent, wanted) = watch::channel(Extent::Nothing);
        let (source, roster, links, _) = Source::new(wanted, post.clone());
        let worker = |name, roster, post| {
            let (read, told) = (read_by.clone(), told_by.clone());
            Worker { name, roster, post, read, told }
        };
        let incumbent = worker('i', roster, post.clone());
        tokio::spawn(source.run(incumbent.clone()));
        let there = Post::default();
        let (extent_there, wanted) = watch::channel(Extent::Nothing);
        let (source, roster, links_there, _) = Source::new(wanted, there.clone());
        let successor = worker('s', roster, there);
        tokio::spawn(source.run(successor.clone()));
        let onward = (extent_there, links_there);
        let mut clients = Vec::new();
        let mut recipients = Vec::new();
        for number in 0..connections {
            let (client, server) = StdStream::pair().unwrap();
            clients.push(client);
            let mailbox: Mailbox = post.open();
            recipients.push(mailbox.recipient());
            let snapshot = Snapshot {
                kind: Kind::WebSocket,
                peer: Peer::Unix,
                read: vec![],
                unsent: vec![],
                version: 1,
                state: number.to_le_bytes().to_vec(),
            };
            incumbent.serve(Frozen::connection(server.into(), snapshot, Some(mailbox)));
        }
        let _clients = clients;
        Self { incumbent, successor, extent, links, onward, recipients, read, told, _clients }
    }

    /// Links the two; the incumbent is reaped when the answer is told so.
    fn link(&self) -> oneshot::Sender<()> {
        let (ours, theirs) = link::pair().unwrap();
        self.links.introduce(Link::new(ours).unwrap());
        let (reaped, wait) = oneshot::channel();
        let target = Target::new(Link::new(theirs).unwrap(), self.successor.post.clone());
        let successor = self.successor.clone();
        tokio::spawn(async move {
            let _ = target.run(successor, async { wait.await.unwrap_or_default() }).await;
        });
        reaped
    }

    /// Has everything go on from the successor to a third generation, `t`.
    async fn move_on(&self) {
        let (ours, theirs) = link::pair().unwrap();
        let (extent, links) = &self.onward;
        links.introduce(Link::new(ours).unwrap());
        let post = Post::default();
        let (_, roster, ..) = Source::new(watch::channel(Extent::Nothing).1, post.clone());
        let third = Worker { name: 't', roster, post: post.clone(), ..self.successor.clone() };
        tokio::spawn(async move {
            let target = Target::new(Link::new(theirs).unwrap(), post);
            let _ = target.run(third, std::future::pending()).await;
        });
        extent.send_replace(Extent::Everything);
        soon(self.successor.roster.emptied()).await;
    }

    /// Ends the link, as the end of the incumbent's process would: by another one.
    fn unlink(&self) {
        let (ours, _theirs) = link::pair().unwrap();
        self.links.introduce(Link::new(ours).unwrap());
    }

    async fn linked(&self) {
        soon(async {
            while !self.incumbent.post.is_linked(Neighbour::Successor) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn move_all(&self) {
        self.extent.send_replace(Extent::Everything);
        soon(self.incumbent.roster.emptied()).await;
    }

    /// Has the incumbent make an offer that its successor does not get, over a link that lives on.
    async fn intercepted_offer(&self) -> (Received<Value>, Link) {
        let (ours, tapped) = link::pair().unwrap();
        self.links.introduce(Link::new(ours).unwrap());
        let tapped = Link::new(tapped).unwrap();
        self.extent.send_replace(Extent::Everything);
        let offer = soon(tapped.receive::<Value>()).await.unwrap().unwrap();
        assert_eq!(offer.message["type"], "offer");
        (offer, tapped)
    }

    async fn next(&mut self) -> Read {
        soon(self.read.recv()).await.unwrap()
    }
}

/// Sends an offer that was intercepted over another link.
async fn pass_on(offer: &Received<Value>, link: &Link) {
    let descriptors: Vec<_> = offer.descriptors.iter().map(AsFd::as_fd).collect();
    link.send(&offer.message, &descriptors).await.unwrap();
}

fn letter(text: &str) -> Delivery {
    Delivery::Letter(text.into())
}

#[tokio::test]
async fn a_letter_reaches_a_connection_where_it_is_served_by_then() {
    let mut pair = Pair::with(1);
    pair.recipients[0].send("before");
    assert_eq!(pair.next().await, (0, 'i', letter("before")));
    let _reaped = pair.link();
    pair.move_all().await;
    pair.recipients[0].send("after");
    assert_eq!(pair.next().await, (0, 's', letter("after")));
    pair.incumbent.post.publish("to all, from there");
    assert_eq!(pair.next().await, (0, 's', letter("to all, from there")));
    pair.successor.post.publish("to all, from here");
    assert_eq!(pair.next().await, (0, 's', letter("to all, from here")));
}

#[tokio::test]
async fn a_letter_too_long_for_a_packet_arrives_whole() {
    let mut pair = Pair::with(1);
    let _reaped = pair.link();
    pair.move_all().await;
    let long: String = "\u{1}ä".repeat(3_000_000);
    pair.recipients[0].send(long.as_str());
    pair.recipients[0].send("short");
    assert_eq!(pair.next().await, (0, 's', letter(&long)));
    assert_eq!(pair.next().await, (0, 's', letter("short")));
}

#[tokio::test]
async fn generations_tell_each_other_things() {
    let mut pair = Pair::with(0);
    assert!(!pair.incumbent.post.tell(Neighbour::Successor, "nobody there"));
    let _reaped = pair.link();
    pair.linked().await;
    assert!(pair.incumbent.post.tell(Neighbour::Successor, "down"));
    assert_eq!(
        soon(pair.told.recv()).await.unwrap(),
        ('s', Neighbour::Incumbent, "down".to_owned())
    );
    assert!(pair.successor.post.tell(Neighbour::Incumbent, "up"));
    assert_eq!(soon(pair.told.recv()).await.unwrap(), ('i', Neighbour::Successor, "up".to_owned()));
}

#[tokio::test]
async fn a_connection_whose_former_generation_ends_hears_of_it_after_its_last_letter() {
    let mut pair = Pair::with(2);
    let _reaped = pair.link();
    pair.move_all().await;
    pair.recipients[1].send("the last");
    soon(pair.incumbent.post.flushed()).await;
    pair.unlink();
    let mut read = vec![pair.next().await, pair.next().await, pair.next().await];
    read.sort_by_key(|(number, ..)| *number);
    assert_eq!(
        read,
        [
            (0, 's', Delivery::Severed { moves: 1 }),
            (1, 's', letter("the last")),
            (1, 's', Delivery::Severed { moves: 1 })
        ]
    );
}

#[tokio::test]
async fn a_connection_that_has_gone_on_hears_which_of_its_former_generations_has_ended() {
    let mut pair = Pair::with(1);
    let _reaped = pair.link();
    pair.move_all().await;
    pair.recipients[0].send("before the next move");
    assert_eq!(pair.next().await, (0, 's', letter("before the next move")));
    pair.move_on().await;
    pair.recipients[0].send("the last");
    soon(pair.incumbent.post.flushed()).await;
    let leaving = pair.successor.post.clone();
    let leaving = tokio::spawn(async move { leaving.unlinked(Neighbour::Incumbent).await });
    assert_eq!(pair.next().await, (0, 't', letter("the last")));
    assert!(!leaving.is_finished(), "it would leave while somebody may still say something");
    pair.unlink();
    assert_eq!(pair.next().await, (0, 't', Delivery::Severed { moves: 2 }));
    soon(leaving).await.unwrap();
}

#[tokio::test]
async fn more_letters_than_fit_are_given_up_and_the_connection_is_told() {
    let post = Post::new(100);
    let mut mailbox = post.open();
    for _ in 0..3 {
        mailbox.recipient().send("x".repeat(40));
    }
    assert_eq!(soon(mailbox.next()).await, Delivery::Lost);
    mailbox.recipient().send("y");
    assert_eq!(soon(mailbox.next()).await, letter("y"));
    let recipient = mailbox.recipient();
    drop(mailbox);
    recipient.send("to nobody");
}

/// Letters from both generations, to all and to each, while everything moves: nobody misses one, nobody
/// has one twice, and each sender's come in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_sent_during_a_move_arrive_once_and_in_order() {
    const CONNECTIONS: u64 = 130;
    const LETTERS: u64 = 100;
    for _ in 0..10 {
        let mut pair = Pair::with(CONNECTIONS);
        let _reaped = pair.link();
        pair.linked().await;
        let mut senders = Vec::new();
        for (sender, post) in [('p', &pair.incumbent.post), ('q', &pair.successor.post)] {
            let post = post.clone();
            senders.push(tokio::spawn(async move {
                for number in 0..LETTERS {
                    post.publish(format!("{sender}{number}"));
                    tokio::task::yield_now().await;
                }
            }));
        }
        let recipients = pair.recipients.clone();
        senders.push(tokio::spawn(async move {
            for number in 0..LETTERS {
                for recipient in &recipients {
                    recipient.send(format!("a{number}"));
                }
                tokio::task::yield_now().await;
            }
        }));
        pair.move_all().await;
        for sender in senders {
            soon(sender).await.unwrap();
        }
        let mut seen: BTreeMap<(u64, char), u64> = BTreeMap::new();
        for _ in 0..CONNECTIONS * LETTERS * 3 {
            let (connection, _, delivery) = pair.next().await;
            let Delivery::Letter(text) = delivery else { panic!("{delivery:?}") };
            let (sender, number) = text.split_at(1);
            let next = seen.entry((connection, sender.chars().next().unwrap())).or_default();
            assert_eq!(number, next.to_string(), "{sender} to {connection}");
            *next += 1;
        }
        assert!(pair.read.try_recv().is_err(), "one came twice");
        assert!(seen.values().all(|count| *count == LETTERS));
    }
}

/// Somebody who publishes faster than the link takes it, without an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_move_while_there_is_always_another_letter() {
    let pair = Pair::with(40);
    let _reaped = pair.link();
    pair.linked().await;
    let post = pair.incumbent.post.clone();
    let publishing = tokio::spawn(async move {
        loop {
            for _ in 0..500 {
                post.publish("x".repeat(300));
            }
            tokio::task::yield_now().await;
        }
    });
    pair.move_all().await;
    publishing.abort();
}

#[tokio::test]
async fn a_connection_whose_commit_could_not_be_sent_comes_back_with_its_letters() {
    let mut pair = Pair::with(1);
    pair.recipients[0].send("before");
    assert_eq!(pair.next().await, (0, 'i', letter("before")));
    let (offer, tapped) = pair.intercepted_offer().await;
    // More than the link holds, ahead of the commit.
    for _ in 0..100 {
        pair.incumbent.post.tell(Neighbour::Successor, &"x".repeat(16 * 1024));
    }
    pair.recipients[0].send("frozen");
    let seq = &offer.message["seq"];
    tapped.send(&json!({ "type": "prepared", "seq": seq }), &[]).await.unwrap();
    // It is behind that answer, and heard once the commit was queued.
    tapped.send(&json!({ "type": "post", "post": { "type": "tell", "text": { "inside": "prepared" } } }), &[]).await.unwrap();
    soon(pair.told.recv()).await.unwrap();
    pair.recipients[0].send("promised");
    pair.incumbent.post.publish("to all, promised");
    pair.extent.send_replace(Extent::Nothing);
    for text in ["frozen", "promised", "to all, promised"] {
        assert_eq!(pair.next().await, (0, 'i', letter(text)));
    }
    // Nor does the successor ever hear of it.
    soon(async {
        loop {
            let said = tapped.receive::<Value>().await.unwrap().unwrap();
            assert_ne!(said.message["type"], "commit");
            if said.message["type"] == "abort" {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_comes_back_has_the_letters_that_came_while_it_was_frozen() {
    let mut pair = Pair::with(1);
    let (offer, tapped) = pair.intercepted_offer().await;
    pair.recipients[0].send("while frozen");
    pair.incumbent.post.publish("to all, while frozen");
    drop((offer, tapped));
    assert_eq!(pair.next().await, (0, 'i', letter("while frozen")));
    assert_eq!(pair.next().await, (0, 'i', letter("to all, while frozen")));
}

#[tokio::test]
async fn what_the_successor_publishes_meanwhile_comes_back_once_for_all_who_are_leaving() {
    for (understood, words) in [(true, 1), (false, 3)] {
        let pair = Pair::with(3);
        let (_offer, tapped) = pair.intercepted_offer().await;
        // The first workers say nothing of letters for several.
        let prepared = match understood {
            true => json!({"type": "prepared", "seq": 1, "late_together": true}),
            false => json!({"type": "prepared", "seq": 1}),
        };
        tapped.send(&prepared, &[]).await.unwrap();
        let commit = soon(tapped.receive::<Value>()).await.unwrap().unwrap().message;
        assert_eq!(commit, json!({"type": "commit", "seq": 1}));
        let news =
            json!({"type": "post", "post": [{"type": "publish", "text": {"inside": "news"}}]});
        tapped.send(&news, &[]).await.unwrap();
        let mut late = Vec::new();
        while late.len() < words {
            let post = soon(tapped.receive::<Value>()).await.unwrap().unwrap().message;
            late.extend(post["post"].as_array().unwrap().iter().cloned());
        }
        let expected = match understood {
            true => vec![json!({
                "type": "late-together", "mailboxes": [0, 1, 2], "text": {"inside": "news"}
            })],
            false => (0..3)
                .map(|n| json!({"type": "late", "mailbox": n, "text": {"inside": "news"}}))
                .collect(),
        };
        assert_eq!(late, expected);
    }
}

#[tokio::test]
async fn connections_of_a_dead_incumbent_are_told_that_it_answers_no_more() {
    let mut pair = Pair::with(1);
    let (offer, _tapped) = pair.intercepted_offer().await;
    // A hand that passes the offer on, and dies without a commit.
    let (hand, theirs) = link::pair().unwrap();
    let hand = Link::new(hand).unwrap();
    let target = Target::new(Link::new(theirs).unwrap(), pair.successor.post.clone());
    let successor = pair.successor.clone();
    tokio::spawn(async move { target.run(successor, std::future::ready(())).await });
    pass_on(&offer, &hand).await;
    let prepared = soon(hand.receive::<Value>()).await.unwrap().unwrap();
    assert_eq!(prepared.message["type"], "prepared");
    drop(hand);
    assert_eq!(pair.next().await, (0, 's', Delivery::Severed { moves: 1 }));
}

#[tokio::test]
async fn what_the_incumbent_has_taken_back_is_never_served_by_a_successor_that_reads_late() {
    let mut pair = Pair::with(1);
    let (offer, _tapped) = pair.intercepted_offer().await;
    let (hand, theirs) = link::pair().unwrap();
    let hand = Link::new(hand).unwrap();
    // Called off before the successor has read anything; the abort never reaches it.
    pair.extent.send_replace(Extent::Nothing);
    pair.recipients[0].send("thawed");
    assert_eq!(pair.next().await, (0, 'i', letter("thawed")));
    pass_on(&offer, &hand).await;
    drop(hand);
    let target = Target::new(Link::new(theirs).unwrap(), pair.successor.post.clone());
    let received = soon(target.run(pair.successor.clone(), std::future::ready(()))).await.unwrap();
    assert_eq!(received, 0);
    assert!(matches!(pair.read.try_recv(), Err(mpsc::error::TryRecvError::Empty)));
}
