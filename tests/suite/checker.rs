//! That the traffic notices what it is there to notice: without this, no other test proves much.

use std::io::Write as _;
use std::net::TcpListener;
use std::thread;

use handoff::Address;
use holdfast_tests::rig::Traffic;
use holdfast_tests::rig::http::{Failure, HttpConnection, Request, ask};
use rustix::net::sockopt::set_socket_linger;

const ANSWER: &str = "HTTP/1.1 200 OK\r\nx-holdfast-generation: g1\r\ncontent-length: 10\r\n\r\n";

/// A server that treats every connection like this.
fn server(treat: impl Fn(std::net::TcpStream) + Send + 'static) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it has an address");
    thread::spawn(move || listener.incoming().flatten().for_each(treat));
    Address::Tcp(address)
}

fn receive_head(stream: &mut std::net::TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while std::io::Read::read(stream, &mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
        if head.ends_with(b"\r\n\r\n") {
            return true;
        }
    }
    false
}

/// What new connections are given by this server, first of all.
async fn first_failure(address: Address) -> Failure {
    let mut traffic = Traffic::to_address(address).with_new();
    traffic.failed().await;
    traffic.stop().await.failures().swap_remove(0)
}

#[tokio::test]
async fn a_refused_connection_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(first_failure(Address::Tcp(address)).await, Failure::Refused);
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_noticed() {
    let address = server(|mut stream| {
        receive_head(&mut stream);
    });
    assert_eq!(first_failure(address).await, Failure::Closed);
}

#[tokio::test]
async fn a_reset_connection_is_noticed() {
    let address = server(|mut stream| {
        receive_head(&mut stream);
        set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    });
    assert_eq!(first_failure(address).await, Failure::Reset);
}

#[tokio::test]
async fn a_cut_answer_is_noticed_however_it_is_framed() {
    let chunked =
        "HTTP/1.1 200 OK\r\nx-holdfast-generation: g1\r\ntransfer-encoding: chunked\r\n\r\n";
    for answer in [
        "HTTP/1.1 200".to_owned(),
        format!("{ANSWER}half"),
        format!("{chunked}5\r\nwhole\r\n"),
        format!("{chunked}5\r\nha"),
    ] {
        let whole = answer.len();
        let address = server(move |mut stream| {
            receive_head(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        assert_eq!(first_failure(address).await, Failure::Cut { received: whole });
    }
}

#[tokio::test]
async fn an_answer_that_is_an_error_is_noticed() {
    let address = server(|mut stream| {
        receive_head(&mut stream);
        let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    assert_eq!(first_failure(address).await, Failure::Status { code: 503 });
}

#[tokio::test]
#[should_panic(expected = "no New answered")]
async fn traffic_that_was_never_answered_proves_nothing() {
    let address = server(drop);
    // Stopped before its first request.
    Traffic::to_address(address).with_new().stop().await.assert_no_failures();
}

#[tokio::test]
#[should_panic(expected = "requests failed")]
async fn a_failure_fails_the_test() {
    let address = server(drop);
    let mut traffic = Traffic::to_address(address).with_new();
    traffic.failed().await;
    traffic.stop().await.assert_no_failures();
}

#[tokio::test]
async fn a_kept_connection_that_the_same_generation_closed_unannounced_is_a_failure_and_no_race() {
    let address = server(|mut stream| {
        // Answers one request and closes at the second, without having said so.
        if receive_head(&mut stream) {
            stream.write_all(format!("{ANSWER}whole body").as_bytes()).unwrap();
            let mut body = [0; 4096];
            let _ = std::io::Read::read(&mut stream, &mut body);
        }
    });
    let mut traffic = Traffic::to_address(address).with_keep_alive();
    traffic.failed().await;
    let tally = traffic.stop().await;
    assert_eq!(tally.raced(), 0);
    assert!(tally.failures()[0].is_unseen(), "{tally}");
}

#[tokio::test]
async fn whole_answers_are_read_whole() {
    for answer in [
        format!("{ANSWER}whole body"),
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
         6\r\nwhole \r\n4\r\nbody\r\n0\r\n\r\n"
            .to_owned(),
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nwhole body".to_owned(),
    ] {
        let address = server(move |mut stream| {
            receive_head(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        assert_eq!(ask(&address, Request::get("/")).await.unwrap().text(), "whole body");
        let mut connection = HttpConnection::open(&address).await.unwrap();
        let response = connection.exchange(&Request::get("/")).await.unwrap();
        assert_eq!((response.code, response.text().as_str()), (200, "whole body"));
    }
}
