//! Two real processes on one database: at once, and with one of them killed. And what a durable write costs.
//!
//! The second process is this test binary again, told to run [`second_process`] alone.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Store;
use super::idempotency::{Claim, IdempotencyKey};
use super::messages::{HistoryWindow, NewMessage};
use super::sessions::NewSession;
use super::shared::Shared;
use crate::state::StateDir;

const DIR: &str = "HOLDFAST_TEST_HAMMER_DIR";
const ROUNDS: i64 = 150;

async fn session(store: &Store) {
    let (key, session_id, agent_id) = ("k".to_owned(), "s".to_owned(), "main".to_owned());
    let new = NewSession { key, session_id, agent_id, ..NewSession::default() };
    store.ensure_session(new, 0).await.unwrap();
}

fn message(content: &str) -> NewMessage {
    NewMessage { role: "user".to_owned(), content: content.to_owned(), run_id: None }
}

fn key(round: i64) -> IdempotencyKey {
    IdempotencyKey { scope: "hammer".to_owned(), key: round.to_string() }
}

/// Appends and claims as fast as it can, and says what it was told.
async fn hammer(store: &Store, who: &str, mut told: impl FnMut(i64, &Claim)) {
    session(store).await;
    for round in 0..ROUNDS {
        let appended = store.append_messages("k", "s", vec![message(who)], round).await.unwrap();
        let claim = store.claim_key(key(round), who, 0, i64::MAX).await.unwrap();
        told(appended, &claim);
    }
}

#[tokio::test]
#[ignore = "is the second process of its neighbours"]
async fn second_process() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = StateDir::open(Some(dir.into())).unwrap();
    let store = Store::open(&dir, "g2").await.unwrap();
    hammer(&store, "second", |seq, claim| println!("\ntold {seq} {}", claim == &Claim::New)).await;
    println!("\ntold -1 false");
    // Holds what it has claimed until it is killed.
    std::future::pending::<()>().await;
}

/// Killed when dropped, and reaped.
struct Second {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Second {
    fn start(shared: &Shared) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "state::store::hammer::second_process", "--ignored", "--nocapture"])
            .env(DIR, shared.at().path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    /// What it was told next: a `seq`, and whether its claim was new. `None` once it has all.
    fn told(&mut self) -> Option<(i64, bool)> {
        loop {
            let line = self.said.next().expect("it lives").unwrap();
            let Some(told) = line.strip_prefix("told ") else { continue };
            let (seq, new) = told.split_once(' ').unwrap();
            let seq = seq.parse().unwrap();
            return (seq > 0).then(|| (seq, new.parse().unwrap()));
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn seqs(store: &Store) -> Vec<i64> {
    let window = HistoryWindow { limit: 1000, max_bytes: 1 << 20, before_seq: None };
    store.history("k", window).await.unwrap().into_iter().map(|message| message.seq).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_write_at_once_lose_nothing_and_claim_nothing_twice() {
    let shared = Shared::new();
    let mut second = Second::start(&shared);
    let store = shared.open("g1").await;
    let (mut all, mut new) = (Vec::new(), 0);
    hammer(&store, "first", |seq, claim| {
        all.push(seq);
        new += i64::from(claim == &Claim::New);
    })
    .await;
    while let Some((seq, is_new)) = second.told() {
        all.push(seq);
        new += i64::from(is_new);
    }
    all.sort_unstable();
    assert_eq!(all, (1..=2 * ROUNDS).collect::<Vec<_>>(), "each number was given once");
    assert_eq!(seqs(&store).await, all);
    assert_eq!(new, ROUNDS, "each key was new once");
}

#[tokio::test]
async fn a_process_that_is_killed_keeps_what_it_was_told_and_lets_go_of_what_it_had_claimed() {
    let shared = Shared::new();
    let store = shared.open("g1").await;
    let mut second = Second::start(&shared);
    let told: Vec<i64> = (0..20).map(|_| second.told().unwrap().0).collect();
    let theirs = store.claim_key(key(0), "first", 0, i64::MAX).await.unwrap();
    assert_eq!(theirs, Claim::InFlight { run_id: "second".to_owned() });
    assert!(store.others_are_alive());
    drop(second);
    assert!(!store.others_are_alive());
    assert_eq!(store.claim_key(key(0), "first", 0, i64::MAX).await.unwrap(), Claim::New);
    let kept = seqs(&store).await;
    assert!(told.iter().all(|seq| kept.contains(seq)), "{told:?} in {kept:?}");
    store.append_messages("k", "s", vec![message("first")], 0).await.unwrap();
}

fn p99(mut took: Vec<Duration>) -> (Duration, Duration) {
    took.sort_unstable();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

/// `cargo test -p holdfast-worker what_a_durable_write_costs -- --ignored --nocapture`, with `TMPDIR` on the disk in question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn what_a_durable_write_costs() {
    const WRITES: usize = 2000;
    let shared = Shared::new();
    let store = shared.open("g1").await;
    session(&store).await;
    let text = "x".repeat(200);
    let mut bare = std::fs::File::create(shared.at().path().join("bare")).unwrap();
    let (mut inserts, mut syncs) = (Vec::new(), Vec::new());
    // In turn, so that both meet the same disk.
    for _ in 0..WRITES {
        let began = Instant::now();
        store.append_messages("k", "s", vec![message(&text)], 0).await.unwrap();
        inserts.push(began.elapsed());
        let began = Instant::now();
        bare.write_all(&[7; 4096]).unwrap();
        bare.sync_data().unwrap();
        syncs.push(began.elapsed());
    }
    let (insert, sync) = (p99(inserts), p99(syncs));
    println!(
        "durable insert p50 {:?} p99 {:?}; write + fdatasync p50 {:?} p99 {:?}",
        insert.0, insert.1, sync.0, sync.1
    );
    let began = Instant::now();
    let writers = (0..64).map(|_| async {
        for _ in 0..100 {
            store.append_messages("k", "s", vec![message(&text)], 0).await.unwrap();
        }
    });
    join_all(writers).await;
    let rate = 6400.0 / began.elapsed().as_secs_f64();
    println!("64 writers at once: {rate:.0} durable inserts/s");
}
