//! What the tests hold a worker with.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// No condition takes longer on a machine that is busy with all the other tests.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the tests' clients know.
pub(crate) const TOKEN: &str = "token-of-the-tests-0123456789";

/// The output of a future, or the end of the test's patience.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("gave up waiting for {what}"),
    }
}

/// A worker's command, not started yet.
pub(crate) fn command(dir: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-worker"));
    command
        .env_clear()
        .env("HOLDFAST_TOKEN", TOKEN)
        .env("HOLDFAST_STATE_DIR", dir.path().join("state"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// What a process wrote to stderr, so far; shown when its test fails.
pub(crate) struct Log {
    text: watch::Receiver<String>,
}

impl Drop for Log {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The harness shows it with the failure.
            #[expect(clippy::print_stdout, reason = "this is where a test's output goes")]
            {
                println!("--- the worker's log\n{}---", *self.text.borrow());
            }
        }
    }
}

impl Log {
    fn follow(child: &mut Child) -> Self {
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, text) = watch::channel(String::new());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                sender.send_modify(|text| {
                    text.push_str(&line);
                    text.push('\n');
                });
            }
        });
        Self { text }
    }

    /// Waits until the log contains `words`.
    pub(crate) async fn shows(&self, words: &str) -> String {
        let mut text = self.text.clone();
        let shown = within(words, text.wait_for(|text| text.contains(words))).await;
        shown.unwrap_or_else(|_| panic!("the log ended without {words:?}")).clone()
    }

    /// What there is so far.
    pub(crate) fn text(&self) -> String {
        self.text.borrow().clone()
    }

    /// All of it, once the process has ended.
    pub(crate) async fn whole(&self) -> String {
        let mut text = self.text.clone();
        within("the end of the log", async { while text.changed().await.is_ok() {} }).await;
        text.borrow().clone()
    }
}

/// A process that a test started.
pub(crate) struct Process {
    child: Child,
    pub(crate) log: Log,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the worker's program is there");
        let log = Log::follow(&mut child);
        Self { child, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("it has not been waited for");
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    pub(crate) async fn exited(&mut self) -> ExitStatus {
        within("the worker's exit", self.child.wait()).await.unwrap()
    }
}

/// A worker that listens by itself, on a Unix socket.
pub(crate) struct Worker {
    pub(crate) process: Process,
    pub(crate) dir: TempDir,
}

impl Worker {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = format!("unix:{}", socket(&dir).display());
        let process = Process::spawn(command(&dir).args(["--listen", &listen]).args(arguments));
        process.log.shows("listening").await;
        Self { process, dir }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(&socket(&self.dir)).await
    }

    /// The response to one request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Reply {
        let mut client = self.connect().await;
        client.send(request.as_bytes()).await;
        client.reply().await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask(&get(path)).await
    }

    pub(crate) async fn complete(&self, body: &Value) -> Reply {
        self.ask(&completion(body, "")).await
    }

    pub(crate) async fn websocket(&self) -> WebSocket {
        WebSocket::open(&socket(&self.dir)).await
    }

    /// A connection that was accepted, and does not wait in the queue any more: it was answered once.
    pub(crate) async fn idle(&self) -> Client {
        let mut client = self.connect().await;
        client.send(get("/healthz").as_bytes()).await;
        assert_eq!(client.reply().await.status, 200);
        client
    }

    /// Has the worker drain; ends when it does. The last answer of the connection that asked.
    pub(crate) async fn drain(&self) -> Reply {
        let (mut asking, spare) = (self.idle().await, self.idle().await);
        let mut spare = Some(spare);
        self.process.signal(Signal::SIGTERM);
        loop {
            asking.send(get("/readyz").as_bytes()).await;
            let reply = asking.reply().await;
            if reply.status != 200 {
                assert!(asking.rest().await.is_empty());
                return reply;
            }
            if reply.header("connection") == Some("close") {
                // The answer was thought of before the drain, and sent in it.
                asking = spare.take().expect("the next one is thought of in the drain");
            }
        }
    }
}

fn socket(dir: &TempDir) -> PathBuf {
    dir.path().join("worker.sock")
}

/// A request without a body.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n")
}

/// A request for a completion; each of `headers` ends with a line break.
pub(crate) fn completion(body: &Value, headers: &str) -> String {
    let body = body.to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The body of a request for a completion.
pub(crate) fn saying(message: &str) -> Value {
    json!({"model": "openclaw", "messages": [{"role": "user", "content": message}]})
}

/// The same, to be answered as a stream.
pub(crate) fn streaming(message: &str) -> Value {
    let mut body = saying(message);
    body["stream"] = json!(true);
    body
}

/// One HTTP connection.
pub(crate) struct Client {
    stream: UnixStream,
    unread: Vec<u8>,
}

/// One response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The data of server-sent events.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.body.split_terminator("\n\n").map(|e| e.strip_prefix("data: ").unwrap()).collect()
    }
}

impl Client {
    pub(crate) async fn connect(socket: &std::path::Path) -> Self {
        let stream = within("a connection", UnixStream::connect(socket)).await.unwrap();
        Self { stream, unread: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within("the worker to read", self.stream.write_all(bytes)).await.unwrap();
    }

    /// Sends as much as the worker reads.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        // A worker that has seen enough stops reading, and then the rest cannot be written.
        let _ = within("the worker to read or to close", self.stream.write_all(bytes)).await;
    }

    /// Sends no more, and reads on.
    pub(crate) async fn close_sending(&mut self) {
        within("half of a close", self.stream.shutdown()).await.unwrap();
    }

    fn into_parts(self) -> (UnixStream, Vec<u8>) {
        (self.stream, self.unread)
    }

    /// The next response, whole.
    pub(crate) async fn reply(&mut self) -> Reply {
        let head = self.until(b"\r\n\r\n").await;
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut reply = Reply { status, headers, body: String::new() };
        if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await {
                reply.body.push_str(&chunk);
            }
        } else if let Some(length) = reply.header("content-length") {
            let length = length.parse().unwrap();
            reply.body = String::from_utf8(self.exactly(length).await).unwrap();
        }
        reply
    }

    /// The head of the next response, and its status.
    pub(crate) async fn head(&mut self) -> String {
        String::from_utf8(self.until(b"\r\n\r\n").await).unwrap()
    }

    /// The next chunk of a response whose head was read; `None` after the last one.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let size = String::from_utf8(self.until(b"\r\n").await).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let chunk = self.exactly(size).await;
        self.until(b"\r\n").await;
        (size > 0).then(|| String::from_utf8(chunk).unwrap())
    }

    /// What comes until the worker closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.unread);
        // A reset is a close too, after which nothing comes.
        let _ = within("the worker to close", self.stream.read_to_end(&mut rest)).await;
        rest
    }

    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                return self.unread.drain(..at + end.len()).collect();
            }
            self.more().await;
        }
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            self.more().await;
        }
        self.unread.drain(..length).collect()
    }

    async fn more(&mut self) {
        let read = within("more of a response", self.stream.read_buf(&mut self.unread)).await;
        assert!(read.unwrap() > 0, "closed after {:?}", String::from_utf8_lossy(&self.unread));
    }
}

/// One WebSocket.
pub(crate) struct WebSocket {
    pub(crate) inner: WebSocketStream<UnixStream>,
}

impl WebSocket {
    /// Opens one, and leaves its challenge unread.
    pub(crate) async fn open(socket: &std::path::Path) -> Self {
        let stream = within("a connection", UnixStream::connect(socket)).await.unwrap();
        let upgrade = tokio_tungstenite::client_async("ws://localhost/", stream);
        let (inner, response) = within("the upgrade", upgrade).await.unwrap();
        assert!(response.headers().contains_key("x-holdfast-generation"));
        Self { inner }
    }

    /// The WebSocket of a connection that upgraded by hand.
    pub(crate) async fn after_upgrade(client: Client) -> Self {
        let (stream, unread) = client.into_parts();
        let inner = WebSocketStream::from_partially_read(stream, unread, Role::Client, None).await;
        Self { inner }
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        within("the worker to read", self.inner.send(Message::text(text))).await.unwrap();
    }

    /// The next frame.
    pub(crate) async fn frame(&mut self) -> Value {
        match self.message().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?} is no frame"),
        }
    }

    /// The next message that is no ping.
    pub(crate) async fn message(&mut self) -> Message {
        loop {
            match within("a message", self.inner.next()).await {
                Some(Ok(Message::Ping(_))) => {}
                Some(Ok(message)) => return message,
                other => panic!("{other:?} is no message"),
            }
        }
    }

    /// The code and reason of the close that comes next.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        match self.message().await {
            Message::Close(Some(close)) => (close.code.into(), close.reason.to_string()),
            other => panic!("{other:?} is no close"),
        }
    }

    pub(crate) async fn challenged(&mut self) {
        let challenge = self.frame().await;
        assert_eq!(challenge["event"], "connect.challenge");
        assert!(challenge["payload"]["nonce"].is_string() && challenge["payload"]["ts"].is_u64());
        assert_eq!(challenge.get("seq"), None);
    }

    /// Connects with these parameters; the answer.
    pub(crate) async fn connect_as(&mut self, params: Value) -> Value {
        self.challenged().await;
        self.send(&json!({"type": "req", "id": "c", "method": "connect", "params": params})).await;
        self.frame().await
    }

    /// Connects as the recorded backend does; its payload of `hello-ok`.
    pub(crate) async fn connect(&mut self) -> Value {
        let hello = self.connect_as(backend()).await;
        assert_eq!(hello["ok"], true, "{hello}");
        assert_eq!(self.frame().await["event"], "health");
        hello["payload"].clone()
    }

    /// The response to a call; events before it are skipped.
    pub(crate) async fn call(&mut self, method: &str) -> Value {
        self.send(&json!({"type": "req", "id": "1", "method": method, "params": {}})).await;
        loop {
            let frame = self.frame().await;
            if frame["type"] == "res" {
                assert_eq!(frame["id"], "1");
                return frame;
            }
        }
    }
}

/// What the recorded backend says of itself, with the tests' token.
pub(crate) fn backend() -> Value {
    json!({
        "minProtocol": 4, "maxProtocol": 4,
        "client": {"id": "gateway-client", "displayName": "probe", "version": "2026.5.12",
            "platform": "linux", "mode": "backend"},
        "caps": [], "role": "operator", "scopes": ["operator.admin"], "auth": {"token": TOKEN},
    })
}
