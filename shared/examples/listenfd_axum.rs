//! An axum server that knows nothing of Holdfast, and takes its listening socket as socket activation gives it:
//!
//! ```text
//! cargo build -p handoff --examples
//! holdfast run --adapter activate --ready-http / -- target/debug/examples/listenfd_axum
//! ```

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long those that were accepted last have to ask for something: axum closes connections that have not.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A listener that accepts until it is to stop.
struct Until {
    listener: TcpListener,
    stop: watch::Receiver<bool>,
}

impl axum::serve::Listener for Until {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let accepted = tokio::select! {
            accepted = axum::serve::Listener::accept(&mut self.listener) => Some(accepted),
            // An error is a sender that is gone, and then so is the server.
            _ = self.stop.wait_for(|stop| *stop) => None,
        };
        match accepted {
            Some(accepted) => accepted,
            // Never again: axum leaves by its shutdown signal.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = match ListenFd::from_env().take_tcp_listener(0)? {
        Some(listener) => listener,
        None => std::net::TcpListener::bind("127.0.0.1:8080")?,
    };
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let (stopping, stop) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let app = Router::new().fallback(async || format!("pid {}\n", std::process::id()));
    axum::serve(Until { listener, stop }, app)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
            stopping.send_replace(true);
            tokio::time::sleep(LAST_WORDS).await;
        })
        .await?;
    Ok(())
}
