//! The front as a service: a test plays systemd's side.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use handoff::Address;
use handoff::socket::ListeningSocket;
use holdfast_tests::rig::http::{HttpConnection, Request, ask};
use holdfast_tests::rig::{
    Front, Notice, Process, ServiceManager, Setup, Signal, eventually, inheriting,
};

use crate::adapters::{activated, given};
use crate::{fixture, generation, good, quick};

/// The clock of MONOTONIC_USEC, in µs.
fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).expect("it is not before its start")
}

fn inode(descriptor: &OwnedFd) -> u64 {
    rustix::fs::fstat(descriptor).expect("it is open").st_ino
}

/// A listening socket as a socket unit opens it, and its address.
fn unit() -> (Address, OwnedFd) {
    let any: Address = "127.0.0.1:0".parse().expect("it is an address");
    let socket = ListeningSocket::open(&any, 1, 0o600).expect("a port is free").remove(0);
    (socket.address.clone(), socket.duplicate().expect("a descriptor is left"))
}

/// In which order these are told for the first time.
fn order(heard: &[Notice], assignments: &[&str]) -> Vec<usize> {
    let first = |assignment: &&str| heard.iter().position(|n| n.says(assignment));
    assignments.iter().map(|a| first(a).unwrap_or_else(|| panic!("{a}: {heard:?}"))).collect()
}

#[tokio::test]
async fn a_service_is_ready_when_it_serves_reloads_by_a_takeover_and_says_that_it_stops() {
    let manager = ServiceManager::start();
    let mut front = Front::with(|s| manager.serves(good(s))).await;
    let heard = manager.told("READY=1", 1).await;
    assert!(order(&heard, &["STATUS=starting g1", "READY=1"]).is_sorted(), "{heard:?}");
    eventually("its status is told", async || {
        (manager.last("STATUS").as_deref() == Some("serving g1")).then_some(())
    })
    .await;

    let before = monotonic();
    front.signal(Signal::SIGHUP);
    let heard = manager.told("READY=1", 2).await;
    let reloads: Vec<_> = heard.iter().filter(|n| n.says("RELOADING=1")).collect();
    let [reload] = reloads[..] else { panic!("{reloads:?}") };
    let at: u64 = reload.value("MONOTONIC_USEC").unwrap().parse().unwrap();
    assert!((before..=monotonic()).contains(&at), "{at} is not after the signal at {before}");
    let steps = [
        "RELOADING=1",
        "STATUS=serving g1; starting g2; takeover 1: starting",
        "STATUS=serving g2; stopped g1; takeover 1: soaking",
        "STATUS=serving g2; draining g1",
    ];
    assert!(order(&heard, &steps).is_sorted(), "{heard:?}");
    front.until("the incumbent is gone", |s| s.is_settled()).await;

    front.signal(Signal::SIGTERM);
    assert_eq!(front.exit_code().await, 0);
    let heard = manager.told("STOPPING=1", 1).await;
    let stopping = heard.iter().find(|n| n.says("STOPPING=1")).unwrap();
    let more: u64 = stopping.value("EXTEND_TIMEOUT_USEC").unwrap().parse().unwrap();
    assert!(more > 30_000_000, "the drain may take longer than {more}");
    assert!(heard.iter().all(|n| n.value("MAINPID").is_none()), "{heard:?}");
}

#[tokio::test]
async fn every_reload_is_heard_and_ends_also_when_it_comes_to_nothing() {
    let manager = ServiceManager::start();
    let front =
        Front::with(|s| quick(manager.serves(s)).worker(fixture(["first-good", "exit:3"]))).await;
    manager.told("READY=1", 1).await;
    for time in 1..=2 {
        front.signal(Signal::SIGHUP);
        let heard = manager.told("READY=1", time + 1).await;
        assert_eq!(heard.iter().filter(|n| n.says("RELOADING=1")).count(), time, "{heard:?}");
        let status = manager.last("STATUS").unwrap();
        assert!(status.starts_with("serving g1; the last takeover was rolled back: "), "{status}");
        assert!(status.contains("code 3"), "{status}");
    }
}

#[tokio::test]
async fn a_takeover_that_was_asked_for_otherwise_is_a_reload_too() {
    let manager = ServiceManager::start();
    let front = Front::with(|s| manager.serves(good(s))).await;
    front.takeover().await.assert_committed();
    let heard = manager.told("READY=1", 2).await;
    assert_eq!(heard.iter().filter(|n| n.says("RELOADING=1")).count(), 1, "{heard:?}");
}

#[tokio::test]
async fn the_service_manager_is_given_the_very_sockets_that_are_listened_on() {
    let manager = ServiceManager::start();
    let directory = tempfile::tempdir().unwrap();
    let front = Front::with(|s| {
        let path = format!("unix:{}", directory.path().join("front.sock").display());
        let s = manager.serves(good(s)).flag("--shards", "2");
        s.listen("127.0.0.1:0").listen("[::1]:0").listen(path)
    })
    .await;
    manager.told("READY=1", 1).await;
    let mut inodes: Vec<_> =
        manager.kept().iter().flat_map(|(_, kept)| kept).map(|d| inode(d)).collect();
    inodes.sort_unstable();
    assert_eq!(inodes, front.status().await.inodes());
    let mut names: Vec<_> = manager.kept().into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    let mut expected: Vec<_> = front
        .addresses()
        .iter()
        .map(|address| match address {
            Address::Tcp(address) => format!("port-{}", address.port()),
            Address::Unix(_) => "unix".to_owned(),
        })
        .collect();
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(names, expected);
    assert!(manager.heard().iter().filter(|n| n.says("FDSTORE=1")).all(|n| n.says("FDPOLL=0")));
}

#[tokio::test]
async fn the_sockets_of_socket_units_are_listened_on_and_keep_their_names() {
    let manager = ServiceManager::start();
    let ((web, first), (admin, second)) = (unit(), unit());
    let front = Front::with(|s| {
        let s = activated(s, ["listen-fds", "ready"]).listen_by_default();
        inheriting(manager.serves(s), &[&first, &second], "web:admin")
    })
    .await;
    assert_eq!(front.addresses(), [web.clone(), admin.clone()]);
    let mut inodes = [inode(&first), inode(&second)];
    inodes.sort_unstable();
    assert_eq!(front.status().await.inodes(), inodes);
    for address in [&web, &admin] {
        assert_eq!(ask(address, Request::get("/")).await.unwrap().code, 200);
    }
    let environment = given(&front, "environment ").await;
    assert!(environment.contains(&"LISTEN_FDNAMES=web:admin".to_owned()), "{environment:?}");
    manager.told("READY=1", 1).await;
    let names: Vec<_> = manager.kept().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["web", "admin"]);
    front.takeover().await.assert_committed();
    assert_eq!(front.status().await.inodes(), inodes);
}

#[tokio::test]
async fn what_is_wanted_and_was_not_given_is_opened_and_what_is_not_wanted_is_let_go_of() {
    let manager = ServiceManager::start();
    let ((wanted, first), (left, second)) = (unit(), unit());
    let front = Front::with(|s| {
        let s = good(s).listen(wanted.to_string()).listen("127.0.0.1:0");
        // One that is kept besides its unit's comes twice.
        inheriting(manager.serves(s), &[&first, &first, &second], "web:web:left")
    })
    .await;
    let [adopted, opened] = front.addresses() else { panic!("{:?}", front.addresses()) };
    assert_eq!(*adopted, wanted);
    assert!(front.status().await.inodes().contains(&inode(&first)));
    assert_eq!(ask(opened, Request::get("/")).await.unwrap().code, 200);
    let heard = manager.told("FDSTOREREMOVE=1", 1).await;
    let removed = heard.iter().find(|n| n.says("FDSTOREREMOVE=1")).unwrap();
    assert_eq!(removed.value("FDNAME"), Some("left"));
    let theirs = format!("socket:[{}]", inode(&second));
    assert!(!front.process().descriptors().iter().any(|d| d.target == theirs));
    assert_eq!(front.log().lines_with("closed"), 1, "{left}: {}", front.log().text());
}

#[tokio::test]
async fn clients_that_come_between_two_fronts_wait_in_the_queue_that_the_service_manager_keeps() {
    let manager = ServiceManager::start();
    let directory = tempfile::tempdir().unwrap();
    let path = format!("unix:{}", directory.path().join("front.sock").display());
    let mut front =
        Front::with(|s| manager.serves(good(s)).listen("127.0.0.1:0").listen(&path)).await;
    let addresses = front.addresses().to_vec();
    manager.told("READY=1", 1).await;
    front.signal(Signal::SIGTERM);
    assert_eq!(front.exit_code().await, 0);
    let mut between = Vec::new();
    for address in &addresses {
        let mut connection = HttpConnection::open(address).await.unwrap();
        connection.send(&Request::get("/").parts().0).await.unwrap();
        between.push(connection);
    }
    let kept: Vec<_> = manager.kept().into_iter().flat_map(|(_, kept)| kept).collect();
    let kept: Vec<&OwnedFd> = kept.iter().map(AsRef::as_ref).collect();
    let next = Front::with(|s| {
        let s = good(s).listen(addresses[0].to_string()).listen(&path);
        inheriting(manager.serves(s), &kept, "port:unix")
    })
    .await;
    assert_eq!(next.addresses(), addresses);
    for mut connection in between {
        assert_eq!(connection.receive().await.unwrap().generation(), generation(1));
    }
}

#[tokio::test]
async fn what_cannot_be_listened_on_is_refused_by_its_name() {
    let (_, listening) = unit();
    let (connected, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for (descriptor, why) in [
        (OwnedFd::from(connected), "does not listen"),
        (OwnedFd::from(datagram), "no TCP or Unix stream socket"),
        (OwnedFd::from(file), "no TCP or Unix stream socket"),
    ] {
        let refused =
            Front::refused(|s| inheriting(good(s), &[&listening, &descriptor], "web:odd")).await;
        refused.assert_code(78).assert_says("inherited descriptor 4 (odd)").assert_says(why);
    }
    let refused = Front::refused(|s| {
        inheriting(good(s), &[&listening], "").environment("LISTEN_FDS", "many")
    })
    .await;
    refused.assert_code(78).assert_says("LISTEN_FDS promises \"many\"");
}

#[tokio::test]
async fn sockets_that_were_meant_for_another_process_are_not_taken() {
    let front =
        Front::with(|s| good(s).environment("LISTEN_FDS", "1").environment("LISTEN_PID", "1"))
            .await;
    assert_eq!(ask(&front.address(), Request::get("/")).await.unwrap().code, 200);
}

#[tokio::test]
async fn the_watchdog_is_told_in_time_while_a_takeover_runs() {
    let manager = ServiceManager::start();
    let ready = tempfile::tempdir().unwrap();
    let file = ready.path().join("ready");
    let slow = format!("ready-once:{}", file.display());
    let front = Front::with(|s| {
        quick(manager.serves(s))
            .worker(fixture(["first-good", &slow]))
            .environment("WATCHDOG_USEC", "200000")
    })
    .await;
    let takeover = front.begin_takeover();
    let pings = |heard: &[Notice]| -> Vec<Instant> {
        heard.iter().filter(|n| n.says("WATCHDOG=1")).map(|n| n.at).collect()
    };
    let before = pings(&manager.told("RELOADING=1", 1).await).len();
    let heard = manager.told("WATCHDOG=1", before + 6).await;
    std::fs::write(file, "").unwrap();
    takeover.end().await.assert_committed();
    let pings = pings(&heard);
    let took = *pings.last().unwrap() - pings[0];
    let half = Duration::from_millis(100);
    // Every half of the time, and not much more often.
    assert!(
        took >= half * u32::try_from(pings.len() - 1).unwrap() / 2,
        "{} in {took:?}",
        pings.len()
    );
}

/// How often this process has been given the processor and has given it back.
fn turns(process: Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.expect("it runs");
    let of = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it is counted");
        line.trim().parse().expect("a count is a number")
    };
    of("voluntary_ctxt_switches:") + of("nonvoluntary_ctxt_switches:")
}

#[tokio::test]
async fn without_a_watchdog_nobody_is_pinged_and_the_idle_front_does_not_wake_up() {
    let manager = ServiceManager::start();
    // One that is for another process is none.
    let other = |s: Setup| s.environment("WATCHDOG_USEC", "1000").environment("WATCHDOG_PID", "1");
    let front = Front::with(|s| other(manager.serves(good(s)))).await;
    front.takeover().await.assert_committed();
    front.until("it is settled", |s| s.is_settled()).await;
    let idle = eventually("it does nothing for a second", async || {
        let before = turns(front.process());
        // The time in which nothing is to happen, not a wait for anything.
        tokio::time::sleep(Duration::from_secs(1)).await;
        (turns(front.process()) == before).then_some(())
    });
    idle.await;
    assert!(manager.heard().iter().all(|n| !n.says("WATCHDOG=1")));
}

#[tokio::test]
async fn a_service_manager_that_reads_nothing_or_is_gone_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let deaf = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let front = Front::with(|s| good(s).environment("NOTIFY_SOCKET", &path)).await;
    for _ in 0..5 {
        front.takeover().await.assert_committed();
    }
    drop(deaf);
    front.takeover().await.assert_committed();
}
