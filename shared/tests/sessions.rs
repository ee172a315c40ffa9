//! Sessions between two ends of a migration link: programs that run on, with several descriptors each.

#![expect(clippy::unwrap_used, reason = "a test may panic wherever it likes")]

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::time::Duration;

use handoff::Peer;
use handoff::link::{self, Link};
use handoff::migrate::{
    Extent, Frozen, Guard, Kind, Links, Moved, Post, Returned, Roster, Seat, Snapshot, Source,
    Target,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes far too long")
}

/// What became of what stayed behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    Started,
    Dropped,
}

/// What stays behind of a session.
#[derive(Debug)]
struct Stub {
    name: u8,
    fates: mpsc::Sender<(u8, Fate)>,
}

impl Guard for Stub {
    fn committed(&mut self) {
        self.fates.try_send((self.name, Fate::Committed)).unwrap();
    }

    fn started(self: Box<Self>) {
        self.fates.try_send((self.name, Fate::Started)).unwrap();
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        // Nobody may listen any more.
        let _ = self.fates.try_send((self.name, Fate::Dropped));
    }
}

/// An incumbent, and what has come back to it.
struct Incumbent {
    roster: Roster,
    extent: watch::Sender<Extent>,
    moved: watch::Receiver<Moved>,
    links: Links,
    returned: mpsc::Receiver<(Frozen, Returned)>,
    fates: mpsc::Receiver<(u8, Fate)>,
    fate: mpsc::Sender<(u8, Fate)>,
}

impl Incumbent {
    fn new() -> Self {
        let (extent, wanted) = watch::channel(Extent::Nothing);
        let (source, roster, links, moved) = Source::new(wanted, Post::default());
        let (back, returned) = mpsc::channel(500);
        tokio::spawn(source.run(move |frozen, how| back.try_send((frozen, how)).unwrap()));
        let (fate, fates) = mpsc::channel(500);
        Self { roster, extent, moved, links, returned, fates, fate }
    }

    fn link(&self) -> Link {
        let (ours, theirs) = link::pair().unwrap();
        self.links.introduce(Link::new(ours).unwrap());
        Link::new(theirs).unwrap()
    }

    /// A session with so many descriptors, which gives itself when it is asked.
    fn session(&self, name: u8, descriptors: usize) {
        self.seated(self.roster.session_seat(), name, descriptors);
    }

    fn seated(&self, seat: Seat, name: u8, descriptors: usize) {
        let guard = Stub { name, fates: self.fate.clone() };
        tokio::spawn(async move {
            poll_fn(|context| seat.poll_wanted(context)).await;
            let mut ends = (0..descriptors).map(|number| memfd(name, number));
            let descriptor = ends.next().unwrap();
            let (more, snapshot) = (ends.collect(), snapshot(Kind::Session, name));
            let guard: Option<Box<dyn Guard>> = Some(Box::new(guard));
            seat.give(Frozen { descriptor, more, snapshot, mailbox: None, guard });
        });
    }

    fn connection(&self, name: u8) {
        let seat = self.roster.seat();
        tokio::spawn(async move {
            poll_fn(|context| seat.poll_wanted(context)).await;
            seat.give(Frozen::connection(memfd(name, 0), snapshot(Kind::Http1, name), None));
        });
    }

    async fn fate(&mut self) -> (u8, Fate) {
        soon(self.fates.recv()).await.unwrap()
    }

    async fn until(&self, holds: impl FnMut(&Moved) -> bool) -> Moved {
        *soon(self.moved.clone().wait_for(holds)).await.unwrap()
    }
}

/// A descriptor that says whose it is, and which.
fn memfd(name: u8, number: usize) -> OwnedFd {
    use std::io::Write as _;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[name, u8::try_from(number).unwrap()]).unwrap();
    file.into()
}

fn read(memfd: OwnedFd) -> [u8; 2] {
    use std::os::unix::fs::FileExt as _;
    let mut said = [0; 2];
    std::fs::File::from(memfd).read_exact_at(&mut said, 0).unwrap();
    said
}

fn snapshot(kind: Kind, name: u8) -> Snapshot {
    let (read, unsent) = (vec![1], vec![2, 3]);
    Snapshot { kind, peer: Peer::Unix, read, unsent, version: 1, state: vec![name] }
}

/// A successor that takes everything: what it gets, in order.
fn taking(link: Link) -> mpsc::Receiver<Frozen> {
    let (got, gets) = mpsc::channel(500);
    tokio::spawn(async move {
        let resume = move |frozen| got.try_send(frozen).unwrap();
        // How it ends makes no difference here.
        let _ = Target::new(link, Post::default()).run(resume, std::future::pending()).await;
    });
    gets
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
async fn a_session_arrives_with_all_its_descriptors_and_what_stays_behind_hears_of_it() {
    let mut incumbent = Incumbent::new();
    for name in 0..20 {
        incumbent.session(name, 5);
    }
    let mut gets = taking(incumbent.link());
    incumbent.extent.send_replace(Extent::Everything);
    for name in 0..20 {
        let frozen = soon(gets.recv()).await.unwrap();
        assert_eq!(frozen.snapshot, snapshot(Kind::Session, name));
        assert!(frozen.guard.is_none() && frozen.mailbox.is_none());
        let ends = std::iter::once(frozen.descriptor).chain(frozen.more).map(read);
        assert_eq!(ends.collect::<Vec<_>>(), [0, 1, 2, 3, 4].map(|number| [name, number]));
    }
    soon(incumbent.roster.emptied()).await;
    let moved = incumbent.until(|moved| moved.sessions == 20).await;
    assert_eq!((moved.moved.total(), moved.rejected), (0, 0), "they are no connections");
    let mut fates = vec![Vec::new(); 20];
    for _ in 0..60 {
        let (name, fate) = incumbent.fate().await;
        fates[usize::from(name)].push(fate);
    }
    assert_eq!(fates, vec![vec![Fate::Committed, Fate::Started, Fate::Dropped]; 20]);
}

#[tokio::test]
async fn sessions_go_last_but_one_that_hurries_goes_first_and_before_everything_is_to_move() {
    let mut incumbent = Incumbent::new();
    incumbent.session(1, 2);
    let hurried = incumbent.roster.session_seat();
    hurried.hurry();
    incumbent.seated(hurried, 2, 2);
    for name in 10..40 {
        incumbent.connection(name);
    }
    let mut gets = taking(incumbent.link());
    incumbent.extent.send_replace(Extent::Canary);
    let mut names = Vec::new();
    for _ in 0..9 {
        names.push(soon(gets.recv()).await.unwrap().snapshot.state[0]);
    }
    assert_eq!(names, [2, 10, 11, 12, 13, 14, 15, 16, 17]);
    incumbent.until(|moved| moved.sessions == 1).await;
    let late = incumbent.roster.session_seat();
    late.hurry();
    incumbent.seated(late, 3, 2);
    assert_eq!(soon(gets.recv()).await.unwrap().snapshot.state[0], 3, "also one that comes later");
    incumbent.extent.send_replace(Extent::Everything);
    for name in 18..40 {
        assert_eq!(soon(gets.recv()).await.unwrap().snapshot.state[0], name);
    }
    assert_eq!(soon(gets.recv()).await.unwrap().snapshot.state[0], 1);
    incumbent.session(4, 2);
    assert_eq!(soon(gets.recv()).await.unwrap().snapshot.state[0], 4, "one that has just begun");
    assert_eq!(incumbent.fate().await, (2, Fate::Committed));
    assert_eq!(incumbent.fate().await, (2, Fate::Started));
}

#[tokio::test]
async fn an_offer_has_no_more_descriptors_than_a_packet_carries() {
    for (sizes, offered) in [([126, 126], vec![252]), ([127, 126], vec![126, 127])] {
        let incumbent = Incumbent::new();
        for (name, size) in (0..).zip(sizes) {
            incumbent.session(name, size);
        }
        let link = ByHand(incumbent.link());
        incumbent.extent.send_replace(Extent::Everything);
        let mut offers = Vec::new();
        for _ in &offered {
            // Beside the memfd.
            offers.push(link.hear().await.1.len() - 1);
        }
        offers.sort_unstable();
        assert_eq!(offers, offered);
    }
}

#[tokio::test]
async fn connections_and_sessions_that_come_at_once_go_in_offers_of_their_own() {
    let incumbent = Incumbent::new();
    let (busy, seat) = (incumbent.roster.seat(), incumbent.roster.session_seat());
    let link = ByHand(incumbent.link());
    incumbent.extent.send_replace(Extent::Everything);
    poll_fn(|context| busy.poll_wanted(context)).await;
    busy.busy();
    soon(poll_fn(|context| seat.poll_wanted(context))).await;
    // The wave waits for the session, and the connection comes meanwhile.
    busy.give(Frozen::connection(memfd(1, 0), snapshot(Kind::Http1, 1), None));
    incumbent.seated(seat, 2, 5);
    let (first, its) = link.hear().await;
    assert_eq!((&first["count"], its.len()), (&json!(1), 2), "{first}");
    let (second, its) = link.hear().await;
    assert_eq!((&second["count"], its.len()), (&json!(1), 6), "{second}");
}

#[tokio::test]
async fn sessions_that_a_successor_does_not_know_come_back_with_what_stayed_behind() {
    let mut incumbent = Incumbent::new();
    incumbent.session(1, 5);
    incumbent.session(2, 5);
    let link = ByHand(incumbent.link());
    incumbent.extent.send_replace(Extent::Everything);
    let (offer, _) = link.hear().await;
    assert_eq!(offer, json!({"type": "offer", "seq": 1, "count": 2}));
    // What a generation says that cannot read a word of the offer.
    let rejected: Vec<Value> =
        (0..2).map(|index| json!({"index": index, "reason": "what is that?"})).collect();
    link.say(json!({"type": "prepared", "seq": 1, "rejected": rejected})).await;
    for _ in 0..2 {
        let (frozen, how) = soon(incumbent.returned.recv()).await.unwrap();
        assert_eq!((how, frozen.more.len()), (Returned::Rejected, 4));
        assert!(frozen.guard.is_some());
    }
    let moved = incumbent.until(|moved| moved.rejected == 2).await;
    assert_eq!(moved.sessions, 0);
    soon(incumbent.roster.emptied()).await;
    assert_eq!(incumbent.fate().await.1, Fate::Dropped, "it was never committed");
}

#[tokio::test]
async fn what_stayed_behind_of_a_session_that_is_lost_was_committed_and_never_started() {
    let mut incumbent = Incumbent::new();
    incumbent.session(1, 5);
    let link = ByHand(incumbent.link());
    incumbent.extent.send_replace(Extent::Everything);
    link.hear().await;
    link.say(json!({"type": "prepared", "seq": 1})).await;
    link.hear().await;
    assert_eq!(incumbent.fate().await, (1, Fate::Committed));
    drop(link);
    assert_eq!(incumbent.fate().await, (1, Fate::Dropped));
    soon(incumbent.roster.emptied()).await;
    let moved = incumbent.until(|moved| !moved.linked).await;
    assert_eq!((moved.sessions, moved.lost.total()), (0, 0));
}

#[tokio::test]
async fn a_session_that_is_called_off_comes_back_with_what_stayed_behind() {
    let mut incumbent = Incumbent::new();
    incumbent.session(1, 5);
    let link = ByHand(incumbent.link());
    incumbent.extent.send_replace(Extent::Everything);
    link.hear().await;
    drop(link);
    let (frozen, how) = soon(incumbent.returned.recv()).await.unwrap();
    assert_eq!((how, frozen.more.len()), (Returned::Aborted, 4));
    drop(frozen);
    assert_eq!(incumbent.fate().await, (1, Fate::Dropped));
}
