//! What becomes of the bytes on their way through `relay`.

use std::time::Duration;

use handoff::Address;
use holdfast_tests::rig::http::{Failure, HttpConnection, Request};
use holdfast_tests::rig::{Front, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{get, relayed};

/// Some MiB, for which no buffer on the way has room.
const MUCH: usize = 48 << 20;
/// What the adapter may hold of a connection's bytes, and what else may have grown meanwhile.
const HELD: u64 = 8 << 20;

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|place| u8::try_from(place % 251).expect("less than 251")).collect()
}

#[tokio::test]
async fn bulk_arrives_whole_and_in_order_both_ways() {
    let front = Front::with(|s| relayed(s, ["port:PORT"])).await;
    let answer = get(&front, &format!("/bytes?{MUCH}")).await;
    assert!(answer.body == bytes(MUCH), "{} bytes came", answer.body.len());
    let mut connection = HttpConnection::open(&front.address()).await.unwrap();
    let counted = connection.exchange(&Request::post("/count", bytes(MUCH))).await.unwrap();
    assert_eq!(counted.text(), format!("{MUCH} true"));
    // What comes after the bulk goes on as before it.
    for count in [1, 70_000, 3] {
        let answer = connection.exchange(&Request::get(&format!("/bytes?{count}"))).await.unwrap();
        assert_eq!(answer.body, bytes(count));
    }
}

#[tokio::test]
async fn bulk_passes_through_unix_sockets_too() {
    let place = tempfile::tempdir().unwrap();
    let path = format!("unix:{}", place.path().join("public.sock").display());
    let front =
        Front::with(|s| relayed(s.listen(path), ["port:PORT"]).flag("--private", "unix")).await;
    let answer = get(&front, &format!("/bytes?{MUCH}")).await;
    assert!(answer.body == bytes(MUCH), "{} bytes came", answer.body.len());
}

#[tokio::test]
async fn a_client_that_reads_slowly_slows_the_program_and_is_not_buffered() {
    let front = Front::with(|s| relayed(s, ["port:PORT"])).await;
    let adapter = front.serving().await.worker().unwrap();
    get(&front, "/").await;
    let before = adapter.anonymous_bytes();
    let mut slow = TcpStream::connect(front.tcp()).await.unwrap();
    let request = Request::get(&format!("/bytes?{MUCH}")).header("connection", "close");
    slow.write_all(&request.parts().0).await.unwrap();
    let mut first = vec![0; 100_000];
    slow.read_exact(&mut first).await.unwrap();
    // Others are served while it does not read.
    for _ in 0..50 {
        get(&front, "/").await;
    }
    let grown = adapter.anonymous_bytes().saturating_sub(before);
    assert!(grown < HELD, "the adapter grew by {grown} bytes");
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.unwrap();
    first.extend(rest);
    assert!(first.ends_with(&bytes(MUCH)[MUCH - 1_000_000..]));
}

#[tokio::test]
async fn a_client_that_has_said_its_last_still_gets_its_answer() {
    let front = Front::with(|s| relayed(s, ["port:PORT", "echo"])).await;
    let mut client = TcpStream::connect(front.tcp()).await.unwrap();
    client.write_all(b"one two").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "one twobye");
}

#[tokio::test]
async fn an_answer_that_was_cut_does_not_look_whole() {
    let front = Front::with(|s| relayed(s, ["port:PORT"])).await;
    let mut connection = HttpConnection::open(&front.address()).await.unwrap();
    let cut = connection.exchange(&Request::get("/abort")).await;
    assert!(
        matches!(cut, Err(Failure::Cut { .. } | Failure::Reset)),
        "a reset became an end: {cut:?}"
    );
}

#[tokio::test]
async fn a_connection_that_is_silent_for_too_long_is_closed_and_one_that_is_not_stays() {
    let front = Front::with(|s| {
        relayed(s, ["port:PORT", "echo"]).flag("--idle-timeout", "1s").switch("--ready-tcp")
    })
    .await;
    let mut silent = TcpStream::connect(front.tcp()).await.unwrap();
    let mut busy = TcpStream::connect(front.tcp()).await.unwrap();
    let chatting = async {
        let mut byte = [0];
        for _ in 0..20 {
            busy.write_all(b"x").await.unwrap();
            busy.read_exact(&mut byte).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    chatting.await;
    let mut end = Vec::new();
    silent.read_to_end(&mut end).await.unwrap();
    assert!(end.is_empty(), "{end:?}");
}

#[tokio::test]
async fn every_connection_that_ends_is_let_go_of() {
    let front = Front::with(|s| relayed(s, ["port:PORT"])).await;
    let adapter = front.serving().await.worker().unwrap();
    get(&front, "/").await;
    let before = adapter.descriptors().len();
    let address: Address = front.address();
    for index in 0..30 {
        let mut connection = HttpConnection::open(&address).await.unwrap();
        connection.exchange(&Request::get("/bytes?1000000")).await.unwrap();
        if index % 2 == 0 {
            connection.close_sending().await.unwrap();
        }
    }
    // Pipes that wait for the next bulk may stay.
    eventually("its descriptors are closed", async || {
        (adapter.descriptors().len() <= before + 4).then_some(())
    })
    .await;
    front
        .until("none is counted", |s| {
            s.serving().and_then(|g| g.connections).is_some_and(|c| c.total() == 0)
        })
        .await;
}
