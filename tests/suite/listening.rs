//! Where a front listens, and that nobody else does.

use std::os::unix::fs::PermissionsExt as _;

use handoff::Address;
use holdfast_tests::rig::http::{HttpConnection, Request, ask};
use holdfast_tests::rig::{Front, Traffic, listening_inodes};

use crate::{generation, good, quick, skipped};

#[tokio::test]
async fn every_address_is_served_before_and_after_a_takeover() {
    let Ok(probe) = std::net::TcpListener::bind("[::1]:0") else {
        return skipped("there is no IPv6 here");
    };
    drop(probe);
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("gateway.sock");
    let front = Front::with(|s| {
        good(s).listen("127.0.0.1:0").listen("[::1]:0").listen(format!("unix:{}", path.display()))
    })
    .await;
    assert_eq!(front.addresses().len(), 3);
    for expected in [generation(1), generation(2)] {
        for address in front.addresses() {
            let answer = ask(address, Request::get("/")).await.unwrap();
            assert_eq!(answer.generation(), expected, "{address}");
        }
        if expected == generation(1) {
            front.takeover().await.assert_committed();
        }
    }
}

#[tokio::test]
async fn the_bundled_worker_serves_ipv6_under_traffic() {
    let Ok(probe) = std::net::TcpListener::bind("[::1]:0") else {
        return skipped("there is no IPv6 here");
    };
    drop(probe);
    let front = Front::with(|s| quick(s).listen("[::1]:0")).await;
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    traffic.flows(2).await;
    front.takeover().await.assert_committed();
    traffic.flows(2).await;
    traffic.stop().await.assert_no_failures();
    assert_eq!(front.status().await.inodes(), listening_inodes(front.tcp()));
}

#[tokio::test]
async fn an_ipv6_address_leaves_its_ipv4_namesake_alone() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return skipped("there is no IPv6 here");
    }
    let front = Front::with(|s| good(s).listen("[::]:0")).await;
    let Address::Tcp(address) = front.address() else { panic!("it listens on TCP") };
    let v4 = std::net::SocketAddr::from(([127, 0, 0, 1], address.port()));
    assert!(tokio::net::TcpStream::connect(v4).await.is_err(), "{v4} is open too");
}

#[tokio::test]
async fn a_unix_socket_has_its_mode_and_goes_with_its_front() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("gateway.sock");
    let address = format!("unix:{}", path.display());
    let mut front = Front::with(|s| good(s).listen(&address).flag("--unix-mode", "0620")).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o620);
    front.takeover().await.assert_committed();
    ask(&front.address(), Request::get("/")).await.unwrap();
    front.run(&["stop"]).await.assert_code(0);
    front.exit_code().await;
    assert!(!path.exists(), "the socket was left behind");
}

#[tokio::test]
async fn only_its_own_socket_is_unlinked() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("gateway.sock");
    let mut front = Front::with(|s| good(s).listen(format!("unix:{}", path.display()))).await;
    std::fs::remove_file(&path).unwrap();
    let foreign = std::os::unix::net::UnixListener::bind(&path).unwrap();
    front.run(&["stop"]).await.assert_code(0);
    front.exit_code().await;
    assert!(path.exists(), "somebody else's socket was removed");
    drop(foreign);
}

#[tokio::test]
async fn a_stale_unix_socket_is_replaced_and_a_live_one_and_a_plain_file_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("gateway.sock");
    let address = format!("unix:{}", path.display());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let front = Front::with(|s| good(s).listen(&address)).await;
    ask(&front.address(), Request::get("/")).await.unwrap();
    let second = Front::refused(|s| good(s).listen(&address)).await;
    second.assert_code(78).assert_says(path.to_str().unwrap());
    let plain = place.path().join("plain");
    std::fs::write(&plain, "precious").unwrap();
    let third = Front::refused(|s| good(s).listen(format!("unix:{}", plain.display()))).await;
    third.assert_code(78).assert_says(plain.to_str().unwrap());
    assert_eq!(std::fs::read_to_string(plain).unwrap(), "precious");
}

#[tokio::test]
async fn shards_are_a_group_of_sockets_for_the_life_of_the_front() {
    let front = Front::with(|s| quick(s).flag("--shards", "4")).await;
    let before = front.status().await;
    assert_eq!(before.listeners.len(), 4);
    let shards: Vec<_> = before.listeners.iter().map(|listener| listener.shard).collect();
    assert_eq!(shards, [0, 1, 2, 3]);
    assert!(before.listeners.iter().all(|l| l.address == before.listeners[0].address));
    assert_eq!(before.inodes(), listening_inodes(front.tcp()));
    let traffic = Traffic::of_every_kind(&front);
    traffic.flows(3).await;
    front.takeover().await.assert_committed();
    front.takeover().await.assert_committed();
    traffic.flows(3).await;
    traffic.stop().await.assert_no_failures();
    assert_eq!(front.status().await.inodes(), before.inodes());
    assert_eq!(listening_inodes(front.tcp()), before.inodes());
}

#[tokio::test]
async fn a_second_front_on_the_same_port_is_refused_and_told_who_is_there() {
    let front = Front::with(good).await;
    let second = Front::refused(|s| good(s).listen(front.address().to_string())).await;
    second.assert_code(78).assert_says(&front.address().to_string());
    let holders = [front.process().pid(), front.serving().await.pid].map(|pid| pid.to_string());
    assert!(holders.iter().any(|pid| second.errors.contains(pid)), "{second:?}");
    ask(&front.address(), Request::get("/")).await.unwrap();
    assert_eq!(listening_inodes(front.tcp()), front.status().await.inodes());
}

#[tokio::test]
async fn a_port_that_another_program_would_share_is_refused_too() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(16).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let front = Front::refused(|s| good(s).listen(&address)).await;
    front.assert_code(78).assert_says(&address);
}

#[tokio::test]
async fn the_front_holds_its_listeners_and_no_connection() {
    let front = Front::with(good).await;
    let before = front.process().descriptors().len();
    let mut connections = Vec::new();
    for _ in 0..20 {
        let mut connection = HttpConnection::open(&front.address()).await.unwrap();
        connection.exchange(&Request::get("/")).await.unwrap();
        connections.push(connection);
    }
    let now = front.process().descriptors().len();
    assert!(now <= before, "{before} descriptors became {now}");
    let status = front.status().await;
    let serving = status.serving().unwrap();
    assert_eq!(serving.connections.map(|c| c.http), Some(20));
}

#[tokio::test]
async fn no_more_connections_are_accepted_than_allowed_and_the_others_wait() {
    let front = Front::with(|s| quick(s).flag("--max-connections", "2")).await;
    let mut first = HttpConnection::open(&front.address()).await.unwrap();
    first.exchange(&Request::get("/healthz")).await.unwrap();
    let mut second = HttpConnection::open(&front.address()).await.unwrap();
    second.exchange(&Request::get("/healthz")).await.unwrap();
    let mut third = HttpConnection::open(&front.address()).await.expect("it is queued");
    third.send(&Request::get("/healthz").parts().0).await.unwrap();
    for _ in 0..5 {
        let open = front.serving().await.connections.map(|connections| connections.http);
        assert_eq!(open, Some(2));
    }
    drop(first);
    assert_eq!(third.receive().await.unwrap().code, 200);
}

/// Starts a front in a network of its own, where the default port is free.
const OWN_NETWORK: [&str; 5] =
    ["unshare", "--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""];
/// The same, in one that has no IPv6.
const WITHOUT_IPV6: [&str; 5] = [
    "unshare",
    "--net",
    "sh",
    "-c",
    "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
     ip link set lo up && exec \"$0\" \"$@\"",
];

/// Whether this user may have a network of its own here, with the tools to set it up.
async fn can_have_own_network() -> bool {
    let probe = tokio::process::Command::new(OWN_NETWORK[0])
        .args(&OWN_NETWORK[1..])
        .arg("true")
        .output()
        .await;
    probe.is_ok_and(|output| output.status.success())
}

#[tokio::test]
async fn by_default_it_is_the_gateway_s_port_on_both_loopback_addresses() {
    if !can_have_own_network().await {
        return skipped("no network of its own can be had here");
    }
    let front = Front::with(|s| good(s).listen_by_default().wrapped_in(&OWN_NETWORK)).await;
    let addresses: Vec<_> = front.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1:18789", "[::1]:18789"]);
}

#[tokio::test]
async fn by_default_ipv6_is_done_without_where_there_is_none() {
    if !can_have_own_network().await {
        return skipped("no network of its own can be had here");
    }
    let front = Front::with(|s| good(s).listen_by_default().wrapped_in(&WITHOUT_IPV6)).await;
    let addresses: Vec<_> = front.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1:18789"]);
    assert!(front.log().lines_with("no IPv6") > 0, "it was not said");
}
