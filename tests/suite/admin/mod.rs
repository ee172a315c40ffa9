//! The status page: a process beside the front that looks and tells.

mod guarded;
mod kept;
mod metrics;
mod monitoring;
mod site;

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;

use handoff::Address;
use holdfast_tests::rig::http::{HttpConnection, Request, Response};
use holdfast_tests::rig::{Front, Process, Setup, eventually};
use tokio::process::Child;

use crate::good;

/// A front with a page on a port that nobody else has.
fn with_page(setup: Setup) -> Setup {
    good(setup).flag("--admin", "127.0.0.1:0")
}

/// The page of a front or of a process of its own.
struct Page {
    address: SocketAddr,
}

impl Page {
    /// That of a front, which says where it is.
    async fn of(front: &Front) -> Self {
        let address = eventually("the front says where its page is", async || {
            let log = front.log().text();
            let line = log.lines().find_map(|line| line.strip_prefix("status page: http://"))?;
            line.trim_end_matches('/').parse().ok()
        })
        .await;
        Self { address }
    }

    async fn connect(&self) -> HttpConnection {
        let connected = HttpConnection::open(&Address::Tcp(self.address)).await;
        connected.expect("the page's socket is never closed")
    }

    fn head(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// What a request is answered.
    async fn asked(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut connection = self.connect().await;
        connection.send(&self.head(method, path, headers)).await.expect("it can be sent");
        connection.receive().await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    async fn get(&self, path: &str) -> Response {
        self.asked("GET", path, &[]).await
    }

    /// Ends once a path is answered with this code.
    async fn until(&self, path: &str, code: u16) {
        let what = format!("{path} is answered with {code}");
        eventually(&what, async || (self.get(path).await.code == code).then_some(())).await;
    }
}

/// The process of a front's page, while there is one.
fn process_of(front: &Front) -> Option<Process> {
    let is_it = |process: &Process| process.arguments().get(1).is_some_and(|word| word == "admin");
    front.process().descendants().into_iter().find(|process| is_it(process) && !process.is_gone())
}

/// A page that somebody has started by hand beside a front.
struct OwnPage {
    _child: Child,
    page: Page,
}

impl OwnPage {
    async fn beside(front: &Front) -> Self {
        let log: PathBuf = front.directory().join("page.log");
        let mut command =
            front.command(&["admin", "--admin", "127.0.0.1:0", "--log-format", "json"]);
        command.stderr(File::create(&log).expect("a log can be made"));
        let child = command.spawn().expect("holdfast can be started");
        let address = eventually("the page says where it is", async || {
            let text = std::fs::read_to_string(&log).ok()?;
            let line: serde_json::Value = serde_json::from_str(text.lines().next()?).ok()?;
            line["address"].as_str()?.parse().ok()
        })
        .await;
        Self { _child: child, page: Page { address } }
    }
}

/// A turn with the bundled worker that lasts longer than any test.
async fn slow_request(front: &Front) -> HttpConnection {
    let mut slow = HttpConnection::open(&front.address()).await.expect("it is accepted");
    let request = Request::chat("never heard").header("x-holdfast-echo-delay-ms", "60000");
    let (head, body) = request.parts();
    slow.send(&[&head, body].concat()).await.expect("it can be sent");
    front.until("it is in flight", |s| s.serving().and_then(|g| g.in_flight) == Some(1)).await;
    slow
}
