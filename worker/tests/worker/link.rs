//! Under a front: the test holds the other end of the link.

use std::process::Stdio;
use std::time::Duration;

use handoff::link::{Link, pair};
use handoff::message::{Hello, PROTOCOL, SocketEntry, ToFront, ToWorker};
use handoff::socket::ListeningSocket;
use handoff::{Address, Connections, Drain, Drained, GenerationId, Newcomers, Ready};
use std::os::fd::AsFd as _;
use tempfile::TempDir;

use crate::rig::{Client, Process, TOKEN, WebSocket, command, completion, get, streaming, within};

/// A front with one worker, its seventh.
struct Front {
    link: Link,
    worker: Process,
    sockets: Vec<ListeningSocket>,
    dir: TempDir,
}

impl Front {
    async fn start(listen: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = match listen {
            Some(address) => address.parse().unwrap(),
            None => Address::Unix(dir.path().join("front.sock")),
        };
        let sockets = ListeningSocket::open(&address, 1, 0o600).unwrap();
        let (ours, theirs) = pair().unwrap();
        let mut command = command(&dir);
        command.stdin(Stdio::from(theirs)).env("HOLDFAST_LINK", "stdin");
        if listen.is_some() {
            command.env_remove("HOLDFAST_TOKEN");
        }
        let worker = Process::spawn(&mut command);
        // The command holds the worker's end of the link until it is dropped.
        drop(command);
        let front = Self { link: Link::new(ours).unwrap(), worker, sockets, dir };
        let entry = |socket: &ListeningSocket| SocketEntry {
            address: socket.address.to_string(),
            shard: socket.shard,
        };
        let hello = ToWorker::Hello(Hello {
            protocol: PROTOCOL,
            generation: GenerationId::new(7),
            sockets: front.sockets.iter().map(entry).collect(),
            ready_timeout_ms: 60_000,
            drain_timeout_ms: 30_000,
            max_connections: None,
            rescue: None,
        });
        let descriptors: Vec<_> = front.sockets.iter().map(|socket| socket.as_fd()).collect();
        within("the link", front.link.send(&hello, &descriptors)).await.unwrap();
        front
    }

    async fn admitted() -> Self {
        let front = Self::start(None).await;
        front.ready().await;
        front.say(ToWorker::Admit).await;
        assert_eq!(front.hear().await, ToFront::Accepting);
        front
    }

    async fn ready(&self) -> Ready {
        match self.hear().await {
            ToFront::Ready(ready) => ready,
            other => panic!("{other:?} is not ready"),
        }
    }

    async fn say(&self, word: ToWorker) {
        within("the link", self.link.send(&word, &[])).await.unwrap();
    }

    async fn hear(&self) -> ToFront {
        within("a word of the worker", self.link.receive()).await.unwrap().unwrap().message
    }

    async fn drain(&self, timeout: Duration, newcomers: Newcomers) {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap();
        self.say(ToWorker::Drain(Drain { timeout_ms, newcomers })).await;
    }

    async fn drained(&mut self) -> Drained {
        let drained = match self.hear().await {
            ToFront::Drained(drained) => drained,
            other => panic!("{other:?} is not drained"),
        };
        assert!(self.worker.exited().await.success());
        drained
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("front.sock")
    }

    async fn connect(&self) -> Client {
        Client::connect(&self.socket()).await
    }

    async fn websocket(&self) -> WebSocket {
        WebSocket::open(&self.socket()).await
    }

    /// A connection that was answered once.
    async fn idle(&self) -> Client {
        let mut client = self.connect().await;
        client.send(get("/healthz").as_bytes()).await;
        assert_eq!(client.reply().await.header("x-holdfast-generation"), Some("g7"));
        client
    }

    /// A connection whose answer takes for ever.
    async fn busy(&self) -> Client {
        let mut client = self.connect().await;
        let slow = "x-holdfast-echo-delay-ms: 60000\r\n";
        client.send(completion(&streaming("never"), slow).as_bytes()).await;
        client.head().await;
        client
    }
}

#[tokio::test]
async fn ready_greets_with_a_command_and_without_the_token() {
    let front = Front::start(None).await;
    let ready = front.ready().await;
    assert!(ready.program.starts_with("holdfast-worker "));
    assert!(ready.free_descriptors > 0);
    let greeting = ready.greeting.join("\n");
    assert!(greeting.contains("curl") && greeting.contains("$HOLDFAST_TOKEN"), "{greeting}");
    assert!(!greeting.contains(TOKEN));
}

#[tokio::test]
async fn a_report_counts_connections_by_kind_and_names_the_oldest_work() {
    let front = Front::admitted().await;
    let _idle = front.idle().await;
    let _busy = front.busy().await;
    front.websocket().await.connect().await;
    let mut socket = front.websocket().await;
    socket.connect().await;
    // The first WebSocket was dropped; its end is noticed in its own time.
    let report = within("the counts", async {
        loop {
            front.say(ToWorker::Report).await;
            let ToFront::Report(report) = front.hear().await else { panic!("no report") };
            if report.connections == (Connections { http: 2, websocket: 1 }) {
                return report;
            }
        }
    })
    .await;
    assert_eq!(report.in_flight, 1);
    assert_eq!(report.oldest.unwrap().what, "POST /v1/chat/completions");
}

#[tokio::test]
async fn at_the_deadline_the_idle_are_finished_the_told_are_closed_and_the_busy_are_cut() {
    let mut front = Front::admitted().await;
    let mut idle = front.idle().await;
    let mut busy = front.busy().await;
    let mut socket = front.websocket().await;
    socket.connect().await;
    front.drain(Duration::from_millis(500), Newcomers::Leave).await;
    // It may hear of the busy one's run before.
    let told = loop {
        let frame = socket.frame().await;
        if frame["event"] != "agent" {
            break frame;
        }
    };
    assert_eq!(told["payload"]["restartExpectedMs"], 0);
    assert_eq!(socket.closed().await.0, 1012);
    let drained = front.drained().await;
    assert_eq!(drained.finished, Connections { http: 1, websocket: 0 });
    assert_eq!(drained.closed, Connections { http: 0, websocket: 1 });
    assert_eq!(drained.cut, Connections { http: 1, websocket: 0 });
    assert!(idle.rest().await.is_empty());
    busy.rest().await;
}

#[tokio::test]
async fn a_drain_without_connections_ends_at_once() {
    let mut front = Front::admitted().await;
    front.drain(Duration::from_secs(3600), Newcomers::Leave).await;
    assert_eq!(front.drained().await, Drained::default());
}

#[tokio::test]
async fn where_nobody_else_serves_newcomers_are_served_until_nothing_is_open() {
    let mut front = Front::admitted().await;
    let busy = front.busy().await;
    front.drain(Duration::from_secs(3600), Newcomers::Serve).await;
    // Until the drain has arrived, a newcomer is served without being told to close.
    within("a newcomer to be told", async {
        loop {
            let mut newcomer = front.connect().await;
            newcomer.send(get("/healthz").as_bytes()).await;
            let reply = newcomer.reply().await;
            assert_eq!(reply.status, 200);
            if reply.header("connection") == Some("close") {
                return;
            }
        }
    })
    .await;
    drop(busy);
    let drained = front.drained().await;
    assert_eq!(drained.cut, Connections::default());
}

#[tokio::test]
async fn a_stopped_worker_serves_what_is_open_and_accepts_again_when_told() {
    let front = Front::admitted().await;
    let mut open = front.idle().await;
    front.say(ToWorker::StopAccepting).await;
    assert_eq!(front.hear().await, ToFront::Stopped);
    let mut waiting = front.connect().await;
    waiting.send(get("/healthz").as_bytes()).await;
    open.send(get("/readyz").as_bytes()).await;
    let reply = open.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (200, None));
    front.say(ToWorker::Admit).await;
    assert_eq!(front.hear().await, ToFront::Accepting);
    assert_eq!(waiting.reply().await.status, 200);
}

#[tokio::test]
async fn a_worker_that_was_never_admitted_leaves_with_its_front() {
    let Front { link, mut worker, sockets, dir } = Front::start(None).await;
    let ready = within("a word of the worker", link.receive::<ToFront>()).await;
    assert!(matches!(ready.unwrap().unwrap().message, ToFront::Ready(_)));
    drop(link);
    assert!(worker.exited().await.success());
    drop((sockets, dir));
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_told_to_the_front() {
    let mut front = Front::start(Some("0.0.0.0:0")).await;
    match front.hear().await {
        ToFront::Failing { conditions } => {
            assert!(conditions[0].starts_with("token: "), "{conditions:?}");
            assert!(conditions[0].contains("set HOLDFAST_TOKEN"), "{conditions:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(front.worker.exited().await.code(), Some(78));
}
