//! From what was asked to a program that runs: its tools, its directory, its process, in this order.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;

use tracing::warn;

use super::backend::CliBackend;
use super::child::{Child, Plan};
use super::failure::CliFailure;
use super::mcp::{Endpoint, Toolbox};
use super::program::{
    Asked, Conversation, Tools, arguments, environment, fingerprint, furniture, stdin,
};
use super::reliability::Beginning;
use super::scratch::ScratchRoot;
use super::session::{Origin, Session};
use super::turn::Limits;
use crate::state::config::Environment;

/// What all programs of a backend are started with.
#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) backend: CliBackend,
    /// What the values of configured variables are looked up in.
    pub(super) values: Environment,
    pub(super) root: ScratchRoot,
    pub(super) toolbox: Toolbox,
}

impl Launcher {
    /// What a program for this would be started for.
    pub(super) fn fingerprint(&self, asked: &Asked) -> String {
        let tools = if self.backend.bundle_mcp { self.toolbox.names() } else { Vec::new() };
        fingerprint(asked, &self.backend, &self.values, &tools)
    }

    /// What programs are given and nobody else may read.
    pub(super) fn secrets(&self) -> Vec<String> {
        let values = self.backend.env.values().filter_map(|value| value.reveal(&self.values));
        let mut secrets: Vec<String> = values.map(str::to_owned).collect();
        // One that is part of another must not leave the rest of that behind.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }

    /// What a turn may take.
    pub(super) fn limits(&self, asked: &Asked, beginning: Beginning) -> Limits {
        let reliability = &self.backend.reliability;
        Limits {
            timeout: asked.timeout,
            silence: reliability.watchdog.no_output_timeout(beginning, asked.timeout),
            bytes: reliability.output_limits.bytes(),
            lines: reliability.output_limits.lines(),
        }
    }

    /// Starts a program that goes on with the conversation `known`, if there is one and it can.
    ///
    /// # Errors
    /// [`CliFailure`]: nothing runs, and nothing stays behind.
    pub(super) async fn launch(
        self: &Arc<Self>,
        asked: Asked,
        known: Option<String>,
    ) -> Result<(Session, Beginning), CliFailure> {
        let launcher = Arc::clone(self);
        let launched = tokio::task::spawn_blocking(move || launcher.start(&asked, known)).await;
        // It is not joined when the worker ends, or when it has panicked: that was said then.
        launched.unwrap_or(Err(CliFailure::Closed))
    }

    fn start(
        &self,
        asked: &Asked,
        known: Option<String>,
    ) -> Result<(Session, Beginning), CliFailure> {
        let backend = &self.backend;
        let command = || backend.command.clone();
        let refused = |source| CliFailure::Start { command: command(), source };
        let endpoint = if backend.bundle_mcp {
            Some(Endpoint::open(self.toolbox.clone()).map_err(refused)?)
        } else {
            None
        };
        let tools = endpoint
            .as_ref()
            .map(|endpoint| Tools { address: endpoint.address(), token: endpoint.token() });
        let furniture = furniture(asked, backend, tools);
        // Also one that needs no files: what is written down beside it is whose program it is.
        let scratch = self.root.furnish(&furniture);
        let mut scratch = scratch.map_err(|source| CliFailure::Scratch { source })?;
        let conversation = Conversation::of(backend, known);
        let directory = scratch.path();
        let plan = Plan {
            command: command(),
            args: arguments(asked, backend, &conversation, (&directory, &furniture)),
            environment: environment(std::env::vars_os(), asked, backend, &self.values, tools),
            workspace: asked.workspace.clone(),
        };
        // A workspace that is not there would look like a program that is not.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&plan.workspace)
            .map_err(|source| CliFailure::Workspace { path: plan.workspace.clone(), source })?;
        let (child, pipes) = Child::spawn(&plan).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CliFailure::Missing { command: command() },
            _ => refused(source),
        })?;
        if let Err(error) = scratch.inhabit(child.life()) {
            warn!(
                error = &error as &dyn std::error::Error,
                "a CLI's directory does not say whose it is"
            );
        }
        let input = stdin(asked, backend, &conversation).unwrap_or_default().into_bytes();
        let beginning = conversation.beginning(backend);
        let conversation = match conversation {
            Conversation::Known(id) => Some(id),
            // One that stays is told no id, and says what it has chosen.
            Conversation::New(id) => id.filter(|_| !backend.is_live()),
        };
        let origin = Origin {
            scratch,
            endpoint,
            fingerprint: self.fingerprint(asked),
            conversation,
            longest_line: backend.reliability.output_limits.bytes(),
        };
        let mut session = Session::new(child, pipes, origin).map_err(refused)?;
        if !backend.is_live() {
            session.say(&input);
            session.end_input();
        }
        Ok((session, beginning))
    }
}
