//! What the page, the documents and the probes say.

use holdfast_tests::rig::{Front, Signal, Traffic, eventually, soon};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;

use super::{OwnPage, Page, slow_request, with_page};
use crate::{fixture, good, quick};

#[tokio::test]
async fn every_path_is_answered_as_what_it_is_and_by_rules_that_let_a_browser_load_nothing_else() {
    let front = Front::with(with_page).await;
    let page = Page::of(&front).await;
    for (path, kind) in [
        ("/", "text/html"),
        ("/?query=1", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/status.json", "application/json"),
        ("/metrics", "text/plain; version=0.0.4"),
        ("/healthz", "text/plain"),
        ("/readyz", "text/plain"),
    ] {
        let answer = page.get(path).await;
        assert_eq!(answer.code, 200, "{path}: {}", answer.text());
        let said = answer.header("content-type").unwrap_or_default();
        assert!(said.starts_with(kind), "{path}: {said}");
        assert!(!answer.body.is_empty(), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        let policy = answer.header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(page.asked("POST", path, &[]).await.code, 405, "{path}");
        let refused = page.asked("DELETE", path, &[]).await;
        assert_eq!(refused.header("allow"), Some("GET, HEAD"), "{path}");
    }
    for path in ["/nothing", "/status", "/../etc/passwd", "//", "/page.css/"] {
        assert_eq!(page.get(path).await.code, 404, "{path}");
    }
}

#[tokio::test]
async fn a_head_is_answered_with_the_head_alone() {
    let front = Front::with(with_page).await;
    let page = Page::of(&front).await;
    for path in ["/", "/metrics", "/healthz", "/events"] {
        let mut connection = page.connect().await;
        let head = page.head("HEAD", path, &[("connection", "close")]);
        connection.send(&head).await.expect("it can be sent");
        let answer = soon("the head", connection.closed()).await.expect("it is answered");
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n"),
            "{path}: {text}"
        );
    }
}

#[tokio::test]
async fn the_status_document_is_that_of_the_command() {
    let front = Front::with(with_page).await;
    let page = Page::of(&front).await;
    let document = page.get("/status.json").await.json();
    let said: Value = serde_json::from_str(&front.run(&["status", "--json"]).await.output).unwrap();
    let names = |document: &Value| -> Vec<String> {
        document.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(names(&document), names(&said));
    for field in ["listeners", "next_takeover", "takeovers"] {
        assert_eq!(document[field], said[field], "{field}");
    }
}

#[tokio::test]
async fn the_page_is_readable_as_it_is_and_tells_of_takeovers() {
    let front = Front::with(with_page).await;
    let page = Page::of(&front).await;
    front.takeover().await.assert_committed();
    front.takeover_to(&fixture(["exit:7"])).await.assert_rolled_back();
    let text = eventually("the page tells of both", async || {
        let text = page.get("/").await.text();
        (text.contains("rolled back") && text.contains("exited with code 7")).then_some(text)
    })
    .await;
    for words in
        ["g1 → g2", "committed", "soaking", "g2 serves", "has been gone for", "<noscript>", "<svg"]
    {
        assert!(text.contains(words), "no {words:?}: {text}");
    }
}

/// Somebody who follows the page.
struct Viewer {
    lines: Lines<BufReader<TcpStream>>,
}

impl Viewer {
    async fn of(page: &Page) -> Self {
        let mut stream = TcpStream::connect(page.address).await.expect("the page is there");
        stream.write_all(&page.head("GET", "/events", &[])).await.expect("it can be sent");
        Self { lines: BufReader::new(stream).lines() }
    }

    async fn line(&mut self) -> Option<String> {
        soon("a line", self.lines.next_line()).await.expect("the stream can be read")
    }

    /// The sections that it is told next.
    async fn news(&mut self) -> Vec<(String, String)> {
        loop {
            let line = self.line().await.expect("the stream goes on");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).expect("data are sections");
            }
        }
    }
}

#[tokio::test]
async fn a_viewer_is_told_what_changes_as_it_changes() {
    let front = Front::with(with_page).await;
    let page = Page::of(&front).await;
    let mut viewer = Viewer::of(&page).await;
    assert_eq!(viewer.line().await.as_deref(), Some("HTTP/1.1 200 OK"));
    assert_eq!(viewer.line().await.as_deref(), Some("content-type: text/event-stream"));
    let first = viewer.news().await;
    let ids: Vec<_> = first.iter().map(|(id, _)| id.as_str()).collect();
    let all = ["verdict", "picture", "numbers", "generations", "takeovers", "events", "front"];
    assert_eq!(ids, all);
    front.takeover().await.assert_committed();
    let is_told = |news: &[(String, String)]| {
        news.iter().any(|(id, content)| id == "verdict" && content.contains("g2 serves."))
    };
    while !is_told(&viewer.news().await) {}
}

#[tokio::test]
async fn probes_tell_whether_the_front_lives_and_whether_a_worker_accepts() {
    let hangs = |s| good(s).worker(fixture(["hang"])).flag("--ready-timeout", "3s").not_serving();
    let front = Front::with(hangs).await;
    let own = OwnPage::beside(&front).await;
    let page = &own.page;
    page.until("/healthz", 200).await;
    assert_eq!(page.get("/readyz").await.code, 503);
    front.takeover_to(&fixture(["serve"])).await.assert_committed();
    page.until("/readyz", 200).await;
    front.run(&["pause"]).await.assert_code(0);
    page.until("/readyz", 503).await;
    assert_eq!(page.get("/healthz").await.code, 200);
    front.run(&["resume"]).await.assert_code(0);
    page.until("/readyz", 200).await;
}

#[tokio::test]
async fn a_front_that_does_not_answer_is_said_to_be_gone() {
    let front = Front::with(with_page).await;
    let page = Page::of(&front).await;
    front.signal(Signal::SIGSTOP);
    for path in ["/healthz", "/readyz", "/status.json", "/"] {
        page.until(path, 503).await;
    }
    assert!(page.get("/").await.text().contains("The front does not answer"));
    front.signal(Signal::SIGCONT);
    page.until("/healthz", 200).await;
}

#[tokio::test]
async fn a_page_of_its_own_outlives_the_front_and_finds_the_next_one() {
    let mut front = Front::with(good).await;
    let own = OwnPage::beside(&front).await;
    let page = &own.page;
    page.until("/healthz", 200).await;
    front.run(&["stop"]).await.assert_code(0);
    front.exit_code().await;
    page.until("/healthz", 503).await;
    assert!(page.get("/").await.text().contains("no front answers on"));
    assert!(page.get("/metrics").await.text().contains("\nholdfast_up 0\n"));
    front.start_again(good).await;
    page.until("/readyz", 200).await;
}

#[tokio::test]
async fn readiness_does_not_flip_while_workers_are_replaced() {
    for order in ["start-first", "stop-first"] {
        let choose = |s| quick(s).flag("--admin", "127.0.0.1:0").flag("--takeover-order", order);
        let front = Front::with(choose).await;
        let page = Page::of(&front).await;
        let traffic = Traffic::of_every_kind(&front);
        traffic.flows(1).await;
        let mut takeovers = 0;
        while takeovers < 3 {
            let takeover = front.begin_takeover();
            let mut end = std::pin::pin!(takeover.end());
            loop {
                tokio::select! {
                    ended = &mut end => {
                        ended.assert_committed();
                        break;
                    }
                    answer = page.get("/readyz") => assert_eq!(answer.code, 200, "{order}"),
                }
            }
            takeovers += 1;
        }
        traffic.stop().await.assert_no_failures();
    }
}

#[tokio::test]
async fn what_a_drain_waits_for_is_shown() {
    let front = Front::with(|s| quick(s).flag("--admin", "127.0.0.1:0")).await;
    let page = Page::of(&front).await;
    let _slow = slow_request(&front).await;
    front.run(&["takeover", "--no-wait"]).await.assert_code(0);
    eventually("the page says who drains", async || {
        let text = page.get("/").await.text();
        let says = text.contains("g2 serves, and g1 finishes what it has open");
        (says && text.contains("g1 waits for POST /v1/chat/completions")).then_some(())
    })
    .await;
}
