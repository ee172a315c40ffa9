//! nginx and HAProxy, answering the same request from memory, to be reloaded beside a takeover.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use holdfast_tests::rig::{Process, Signal, eventually};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// A program of another kind that is reloaded without being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Nginx,
    HaProxy,
}

impl Peer {
    pub(crate) const ALL: [Self; 2] = [Self::Nginx, Self::HaProxy];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
        }
    }

    /// Where it is installed, if it is; services lie outside many a `PATH`.
    fn program(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/sbin".into(), "/usr/local/sbin".into()];
        let mut directories = std::env::split_paths(&path).chain(usual);
        directories.find_map(|directory| {
            let program = directory.join(self.name());
            program.is_file().then_some(program)
        })
    }

    /// The version it tells, if it is installed.
    pub(crate) fn version(self) -> Option<String> {
        let output = Command::new(self.program()?).arg("-v").output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&text).lines().next()?.to_owned();
        let version = line.split([' ', '/']).find(|w| w.starts_with(|c: char| c.is_ascii_digit()));
        Some(version.unwrap_or(&line).to_owned())
    }

    fn configuration(self, address: SocketAddr) -> String {
        match self {
            // Its own limit of 1000 requests a connection would close some without a reload.
            Self::Nginx => format!(
                "daemon off;\nworker_processes 2;\npid nginx.pid;\nerror_log nginx.log;\n\
                 events {{ worker_connections 8192; }}\n\
                 http {{\n  access_log off;\n  keepalive_requests 1000000;\n  \
                 server {{ listen {address} backlog=4096; return 200 '{{\"ok\":true}}'; }}\n}}\n"
            ),
            Self::HaProxy => format!(
                "global\n  maxconn 8192\ndefaults\n  mode http\n  timeout client 75s\n  \
                 timeout connect 5s\n  timeout server 75s\n\
                 frontend bench\n  bind {address} backlog 4096\n  http-request return status 200 \
                 content-type application/json string '{{\"ok\":true}}'\n"
            ),
        }
    }
}

/// One of them, running. Whatever is left of it when this is dropped is killed.
pub(crate) struct RunningPeer {
    peer: Peer,
    master: Process,
    child: std::process::Child,
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl RunningPeer {
    /// Starts it on a free port, unless it is not installed.
    pub(crate) async fn start(peer: Peer) -> Option<Self> {
        let program = peer.program()?;
        let directory = tempfile::tempdir().expect("a directory can be made");
        let address = free_address();
        let file = directory.path().join("configuration");
        fs::write(&file, peer.configuration(address)).expect("a file can be written");
        let mut command = Command::new(program);
        command.current_dir(directory.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        match peer {
            Peer::Nginx => command.arg("-p").arg(directory.path()).arg("-c").arg(&file),
            Peer::HaProxy => command.arg("-W").arg("-f").arg(&file),
        };
        let child = command.spawn().expect("an installed program can be started");
        let pid = i32::try_from(child.id()).expect("a pid is an i32");
        let master = Process::find(pid).expect("a child that was not waited for is there");
        let running = Self { peer, master, child, address, _directory: directory };
        eventually(peer.name(), async || TcpStream::connect(address).await.ok()).await;
        Some(running)
    }

    /// Has it replace its workers, and ends when there is another one.
    pub(crate) async fn reload(&self) {
        let before = self.master.descendants();
        self.master.signal(match self.peer {
            // What `nginx -s reload` sends, and `systemctl reload haproxy`.
            Peer::Nginx => Signal::SIGHUP,
            Peer::HaProxy => Signal::SIGUSR2,
        });
        eventually("a reloaded worker", async || {
            self.master.descendants().iter().any(|it| !before.contains(it)).then_some(())
        })
        .await;
    }

    /// Ends it as its own signal does, so that it reaps what it started.
    pub(crate) async fn end(self) {
        self.master.signal(Signal::SIGTERM);
        eventually("a peer ends", async || self.master.is_gone().then_some(())).await;
    }

    /// How many processes it has.
    pub(crate) fn processes(&self) -> usize {
        1 + self.master.descendants().len()
    }
}

impl Drop for RunningPeer {
    fn drop(&mut self) {
        let family = self.master.descendants();
        for process in [self.master].into_iter().chain(family) {
            process.signal(Signal::SIGKILL);
        }
        // Only a child that was waited for already cannot be.
        let _ = self.child.wait();
    }
}

/// HAProxy in `mode tcp` before one server, with one thread. Dropped, it is killed.
pub(crate) struct TcpProxy {
    child: std::process::Child,
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl TcpProxy {
    /// Starts it on a free port, unless it is not installed.
    pub(crate) async fn start(server: SocketAddr) -> Option<Self> {
        let program = Peer::HaProxy.program()?;
        let directory = tempfile::tempdir().expect("a directory can be made");
        let address = free_address();
        let file = directory.path().join("configuration");
        let text = format!(
            "global\n  maxconn 8192\n  nbthread 1\ndefaults\n  mode tcp\n  timeout client 75s\n  \
             timeout connect 5s\n  timeout server 75s\n\
             listen bench\n  bind {address} backlog 4096\n  server program {server}\n"
        );
        fs::write(&file, text).expect("a file can be written");
        let mut command = Command::new(program);
        command.current_dir(directory.path()).arg("-db").arg("-f").arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("an installed program can be started");
        let running = Self { child, address, _directory: directory };
        eventually("haproxy", async || TcpStream::connect(address).await.ok()).await;
        Some(running)
    }

    /// Its only process.
    pub(crate) fn process(&self) -> Process {
        let pid = i32::try_from(self.child.id()).expect("a pid is an i32");
        Process::find(pid).expect("it runs")
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        // Both fail only for one that has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nobody listens there now.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port can be found");
    listener.local_addr().expect("a listener has an address")
}
