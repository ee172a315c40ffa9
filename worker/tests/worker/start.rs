//! Starting: what is made, what is refused, and how it is said.

use std::os::unix::fs::PermissionsExt as _;

use crate::rig::{Process, TOKEN, Worker, command, completion, saying};

/// Runs until the worker exits by itself; its exit code and log.
async fn refused(command: &mut tokio::process::Command) -> (Option<i32>, String) {
    let mut process = Process::spawn(command);
    let code = process.exited().await.code();
    (code, process.log.whole().await)
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_used_is_named_and_exits_78() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (code, log) = refused(command(&dir).env("HOLDFAST_STATE_DIR", &file)).await;
    assert_eq!(code, Some(78));
    assert!(log.contains(file.to_str().unwrap()), "{log}");
}

#[tokio::test]
async fn an_empty_token_exits_78_by_the_name_of_its_variable() {
    for name in ["HOLDFAST_TOKEN", "OPENCLAW_GATEWAY_TOKEN"] {
        let dir = tempfile::tempdir().unwrap();
        let (code, log) = refused(command(&dir).env_remove("HOLDFAST_TOKEN").env(name, "")).await;
        assert_eq!(code, Some(78));
        assert!(log.contains(&format!("{name} is empty")), "{log}");
    }
}

#[tokio::test]
async fn other_machines_are_refused_until_somebody_chose_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let mut exposed = command(&dir);
    exposed.env_remove("HOLDFAST_TOKEN").args(["--listen", "0.0.0.0:0"]);
    for _ in 0..2 {
        let (code, log) = refused(&mut exposed).await;
        assert_eq!(code, Some(78));
        assert!(log.contains("set HOLDFAST_TOKEN"), "{log}");
    }
    std::fs::write(dir.path().join("state/token"), "chosen\n").unwrap();
    Process::spawn(&mut exposed).log.shows("listening").await;
}

#[tokio::test]
async fn a_command_line_that_is_not_understood_exits_64() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in
        [&["--no-such-flag"][..], &["--listen", "nowhere"], &["--header-timeout", "10"]]
    {
        assert_eq!(refused(command(&dir).args(arguments)).await.0, Some(64));
    }
}

#[tokio::test]
async fn an_address_that_is_taken_exits_1_and_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let (code, log) = refused(command(&dir).args(["--listen", &address])).await;
    assert_eq!(code, Some(1));
    assert!(log.contains(&format!("{address} is in use")), "{log}");
}

#[tokio::test]
async fn two_workers_that_start_together_end_with_one_token() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let start = || {
            Process::spawn(
                command(&dir).env_remove("HOLDFAST_TOKEN").args(["--listen", "127.0.0.1:0"]),
            )
        };
        let (first, second) = (start(), start());
        let token = dir.path().join("state/token");
        for worker in [&first, &second] {
            let log = worker.log.shows("curl").await;
            assert!(log.contains(&format!("the token lies in {}", token.display())), "{log}");
            let url = log.split("curl -sN ").nth(1).unwrap().split(' ').next().unwrap();
            let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
            assert!(accepts(address, std::fs::read_to_string(&token).unwrap().trim()).await);
        }
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(token.clone()), 0o600);
        assert_eq!(mode(dir.path().join("state")), 0o700);
    }
}

async fn accepts(address: &str, token: &str) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    let answered = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        Ok::<_, std::io::Error>(response)
    };
    crate::rig::within("a response", answered).await.unwrap().starts_with("HTTP/1.1 200")
}

#[tokio::test]
async fn the_access_log_has_no_token_and_no_query() {
    let mut worker = Worker::with(&["--access-log", "--log-level", "trace"]).await;
    let request =
        completion(&saying("whisper"), "").replace("completions ", "completions?key=hush ");
    assert_eq!(worker.ask(&request).await.status, 200);
    worker.websocket().await.connect().await;
    worker.process.log.shows("path=\"/v1/chat/completions\" status=200").await;
    worker.process.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(worker.process.exited().await.success());
    let log = worker.process.log.whole().await;
    assert!(log.contains("generation=\"g0\""), "{log}");
    for secret in [TOKEN, "hush", "whisper"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
