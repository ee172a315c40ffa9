//! Who may see the page, and what is refused before anything starts.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use holdfast_tests::rig::{Front, Setup, eventually};

use super::{Page, process_of, with_page};
use crate::{fixture, good};

const SECRET: &str = "the-token-of-the-status-page-0123";
/// `holdfast:` and the secret, as a browser sends them.
const BASIC: &str = "Basic aG9sZGZhc3Q6dGhlLXRva2VuLW9mLXRoZS1zdGF0dXMtcGFnZS0wMTIz";

async fn refused(code: i32, says: &str, choose: impl FnOnce(Setup) -> Setup) {
    let outcome = Front::refused(|s| choose(good(s))).await;
    outcome.assert_code(code).assert_says(says);
    assert!(!outcome.errors.contains("secret"), "{outcome:?}");
}

#[tokio::test]
async fn what_cannot_be_served_is_told_before_anything_starts() {
    refused(64, "127.0.0.1:18790", |s| s.flag("--admin", "18790")).await;
    refused(64, "needs a token", |s| s.flag("--admin", "0.0.0.0:0")).await;
    refused(64, "needs a token", |s| s.environment("HOLDFAST_ADMIN", "[::]:0")).await;
    refused(64, "turn it on", |s| s.flag("--admin-token-file", "/nonexistent")).await;
    let outside = |s: Setup| s.flag("--admin", "0.0.0.0:0");
    refused(78, "/nonexistent", |s| outside(s).flag("--admin-token-file", "/nonexistent")).await;
    refused(78, "shorter than 16", |s| outside(s).environment("HOLDFAST_ADMIN_TOKEN", "secret"))
        .await;
    // Of the block for documentation (RFC 5737): nobody has it.
    let token = |s: Setup| s.environment("HOLDFAST_ADMIN_TOKEN", SECRET);
    refused(78, "192.0.2.1:1", |s| token(s).flag("--admin", "192.0.2.1:1")).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(78, &address, |s| s.flag("--admin", &address)).await;
}

#[tokio::test]
async fn check_says_the_same_of_the_page_as_run() {
    let front = Front::with(good).await;
    let program = fixture(["serve"]).words()[0].clone().into_string().unwrap();
    let check =
        async |words: &[&str]| front.run(&[&["check"], words, &["--", &program]].concat()).await;
    check(&["--admin", "127.0.0.1:0"]).await.assert_code(0);
    check(&["--admin", "0.0.0.0:0"]).await.assert_code(64).assert_says("needs a token");
    check(&["--admin", "somewhere"]).await.assert_code(64);
    check(&["--admin", "0.0.0.0:0", "--admin-token-file", "/nonexistent"]).await.assert_code(78);
}

#[tokio::test]
async fn whoever_does_not_know_the_token_is_told_nothing_but_by_probes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let by_file = |s: Setup| s.flag("--admin-token-file", &file);
    let by_variable = |s: Setup| s.environment("HOLDFAST_ADMIN_TOKEN", SECRET);
    let ways: [&dyn Fn(Setup) -> Setup; 2] = [&by_file, &by_variable];
    for way in ways {
        let front = Front::with(|s| way(good(s).flag("--admin", "0.0.0.0:0"))).await;
        let mut page = Page::of(&front).await;
        page.address.set_ip([127, 0, 0, 1].into());
        let bearer = format!("Bearer {SECRET}");
        for path in ["/", "/page.js", "/events", "/status.json", "/metrics"] {
            let answer = page.get(path).await;
            assert_eq!(answer.code, 401, "{path}");
            assert!(answer.header("www-authenticate").is_some_and(|v| v.contains("Bearer")));
            assert!(!answer.text().contains("g1"), "{path}: {}", answer.text());
            for wrong in ["Bearer the-token", "Basic aG9sZGZhc3Q6eA==", SECRET] {
                let answer = page.asked("GET", path, &[("authorization", wrong)]).await;
                assert_eq!(answer.code, 401, "{path} {wrong}");
            }
        }
        for known in [&bearer, BASIC] {
            let answer = page.asked("GET", "/status.json", &[("authorization", known)]).await;
            assert_eq!(answer.code, 200, "{known}");
        }
        page.until("/healthz", 200).await;
        page.until("/readyz", 200).await;
        // With a token it has any name.
        let named = [("authorization", bearer.as_str()), ("x-name", "gateway.example")];
        assert_eq!(page.asked("GET", "/metrics", &named).await.code, 200);

        let process = process_of(&front).expect("there is one");
        assert!(!process.arguments().join(" ").contains(SECRET), "{:?}", process.arguments());
        assert!(!front.log().text().contains(SECRET), "the token is in the log");
        let worker = front.workers().await[0];
        let environment = worker.environment();
        assert!(!environment.values().any(|value| value.contains(SECRET)), "{environment:?}");
    }
}

#[tokio::test]
async fn a_browser_that_was_led_here_by_another_name_is_turned_away() {
    let front = Front::with(with_page).await;
    let page = Page::of(&front).await;
    let mut connection = page.connect().await;
    connection.send(b"GET /status.json HTTP/1.1\r\nhost: evil.example\r\n\r\n").await.unwrap();
    let answer = connection.receive().await.unwrap();
    assert_eq!(answer.code, 421);
    assert!(!answer.text().contains("g1"));
}

#[tokio::test]
async fn callers_who_say_nothing_do_not_keep_others_out_for_long() {
    let front = Front::with(with_page).await;
    let page = Page::of(&front).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut connection = page.connect().await;
        connection.send(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
        silent.push(connection);
    }
    assert_eq!(page.get("/healthz").await.code, 200);
    let process = process_of(&front).expect("there is one");
    eventually("those who were silent are let go of", async || {
        (process.descriptors().len() < 40).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_no_request_costs_its_connection_and_nothing_else() {
    let front = Front::with(with_page).await;
    let page = Page::of(&front).await;
    let process = process_of(&front).expect("there is one").pid();
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000));
    for bytes in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        long.as_bytes(),
    ] {
        let mut connection = page.connect().await;
        // It may be let go of before it has said everything.
        let _ = connection.send(bytes).await;
        let _ = connection.closed().await;
    }
    page.until("/readyz", 200).await;
    assert_eq!(process_of(&front).map(|process| process.pid()), Some(process));
}
