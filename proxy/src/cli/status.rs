//! `holdfast status`: everything the front knows, as tables or as JSON.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Table, presets};

use super::{Control, Failed, say, spoken};
use crate::control::client::{self, AskFailed};
use crate::control::protocol::{
    Answer, Command, GenerationStatus, LastTakeover, NextTakeover, Outcome, ReexecCounts,
    Status as Document,
};

/// Show the front, its listeners, every generation, and how the last takeover went.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Print one JSON document instead of tables
    #[arg(long)]
    json: bool,
}

/// The status of the front behind a control socket.
pub(super) async fn ask(control: &Control) -> Result<Document, Failed> {
    match client::ask(&control.path()?, Command::Status).await? {
        Answer::Status(status) => Ok(*status),
        _ => Err(AskFailed::Gone.into()),
    }
}

impl Status {
    pub(super) async fn perform(self, control: &Control) -> Result<ExitCode, Failed> {
        let status = ask(control).await?;
        if self.json {
            let document = serde_json::to_string(&status).map_err(|source| Failed::Runtime {
                doing: "could not print",
                source: source.into(),
            })?;
            say(&document);
        } else {
            say(&tables(&status));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn tables(status: &Document) -> String {
    let front = &status.front;
    let mut lines = vec![format!(
        "front {} · pid {} · up {} · {} KiB resident · {} descriptors{}{}",
        front.version,
        front.pid,
        spoken(front.uptime_ms),
        front.resident_bytes / 1024,
        front.descriptors,
        front.limits.map_or_else(String::new, |limits| format!(" of {}", limits.descriptors)),
        if status.stopping { " · stopping" } else { "" }
    )];
    if let Some(recovered) = &front.recovered {
        let workers: Vec<_> = recovered.generations.iter().map(ToString::to_string).collect();
        lines.push(format!(
            "recovered {} from a front that had died ({} ago)",
            workers.join(" and "),
            spoken(recovered.age_ms)
        ));
    }
    let mut listeners = table(["listener", "shard", "inode"]);
    for listener in &status.listeners {
        listeners.add_row([
            listener.address.clone(),
            listener.shard.to_string(),
            listener.inode.to_string(),
        ]);
    }
    lines.push(format!("\n{listeners}"));
    let mut generations = table([
        "generation",
        "state",
        "pid",
        "age",
        "http",
        "websocket",
        "in flight",
        "memory",
        "lease",
        "program",
    ]);
    for generation in &status.generations {
        generations.add_row(row(generation));
    }
    lines.push(format!("\n{generations}\n"));
    for generation in &status.generations {
        if !generation.failing.is_empty() {
            let failing = generation.failing.join(", ");
            lines.push(format!("{} fails at: {failing}", generation.generation));
        }
        if let (Some(oldest), "draining" | "emptying") =
            (&generation.oldest, generation.state.as_str())
        {
            let age = spoken(oldest.age_ms);
            lines.push(format!("{} waits for {} ({age})", generation.generation, oldest.what));
        }
    }
    if let Some(takeover) = &status.takeover {
        let successor = takeover.successor.map_or_else(String::new, |id| format!(" to {id}"));
        let pending = if takeover.pending { ", another one waits" } else { "" };
        lines.push(format!("takeover{successor}: {}{pending}", takeover.step));
    }
    if let Some(last) = &status.last_takeover {
        lines.push(last_takeover(last));
    }
    if let Some(failure) = &status.last_failure {
        let who = failure.generation.map_or_else(String::new, |id| format!("{id} "));
        lines.push(format!(
            "last failure: {who}{} ({} ago)",
            failure.reason,
            spoken(failure.age_ms)
        ));
    }
    if let Some(respawn) = &status.respawn {
        lines.push(format!("nobody serves; the next start is in {}", spoken(respawn.in_ms)));
    }
    if let Some(paused) = &status.paused {
        let (generation, left) = (paused.generation, spoken(paused.remaining_ms));
        lines.push(format!(
            "paused: nobody accepts, {generation} serves what it has open; it accepts again in {left} at the latest"
        ));
    }
    if let Some(next) = &status.next_standby {
        lines.push(format!(
            "nobody stands by; the next standby is started in {}",
            spoken(next.in_ms)
        ));
    }
    if let Some(left) = &status.left_program {
        lines.push(format!(
            "went back to {}: {} crashed again and again, the last time it {} ({} ago)",
            left.back_to,
            left.program,
            left.reason,
            spoken(left.age_ms)
        ));
    }
    lines.push(match &status.next_takeover {
        NextTakeover::Now => "next takeover: possible now".to_owned(),
        NextTakeover::After { generation, within_ms } => {
            format!("next takeover: when {generation} is drained, within {}", spoken(*within_ms))
        }
        NextTakeover::AfterPause => "next takeover: when the front is resumed".to_owned(),
        NextTakeover::AfterThisOne => "next takeover: when this start is over".to_owned(),
        NextTakeover::Never => "next takeover: never, the front stops".to_owned(),
    });
    if status.turned_away > 0 {
        let count = status.turned_away;
        lines.push(format!("{count} connections waited too long for a worker, and were closed"));
    }
    lines.push(format!(
        "takeovers: {} committed, {} rolled back · crashes: {}{}",
        status.takeovers.committed,
        status.takeovers.rolled_back,
        status.crashes,
        reexecs(status.reexecs)
    ));
    lines.join("\n")
}

/// Of most fronts nobody wants to know that they were never renewed.
fn reexecs(ReexecCounts { done, failed }: ReexecCounts) -> String {
    match (done, failed) {
        (0, 0) => String::new(),
        (done, 0) => format!(" · re-execs: {done}"),
        (done, failed) => format!(" · re-execs: {done}, and {failed} failed"),
    }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn row(generation: &GenerationStatus) -> [String; 10] {
    let count = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    [
        generation.generation.to_string(),
        generation.state.clone(),
        generation.pid.to_string(),
        spoken(generation.age_ms),
        count(generation.connections.map(|c| c.http)),
        count(generation.connections.map(|c| c.websocket)),
        count(generation.in_flight),
        generation.resident_bytes.map_or_else(|| "?".to_owned(), |b| format!("{} KiB", b / 1024)),
        if generation.lease { "held" } else { "" }.to_owned(),
        generation.program.clone(),
    ]
}

fn last_takeover(last: &LastTakeover) -> String {
    let name = |id: Option<handoff::GenerationId>| {
        id.map_or_else(|| "nobody".to_owned(), |id| id.to_string())
    };
    let mut line = format!("last takeover: {} to {}, ", name(last.incumbent), name(last.successor));
    match (last.outcome, &last.reason) {
        (Outcome::Committed, _) => line.push_str("committed"),
        (Outcome::RolledBack, Some(reason)) => line.push_str(&format!("rolled back: it {reason}")),
        (Outcome::RolledBack, None) => line.push_str("rolled back"),
    }
    let phases = [
        ("ready", last.phases.ready_ms),
        ("accepting", last.phases.accepting_ms),
        ("switched", last.phases.switched_ms),
        ("committed", last.phases.committed_ms),
        ("drained", last.phases.drained_ms),
    ];
    for (phase, ms) in phases {
        if let Some(ms) = ms {
            line.push_str(&format!(" · {phase} {}", spoken(ms)));
        }
    }
    let counts = [
        ("moved", last.moved),
        ("finished", last.finished),
        ("closed", last.closed),
        ("cut", last.cut),
        ("lost", last.lost),
    ];
    if let Some(ms) = last.held_ms {
        line.push_str(&format!(" · newcomers held {}", spoken(ms)));
    }
    if last.turned_away > 0 {
        line.push_str(&format!(" · turned away {}", last.turned_away));
    }
    for (what, connections) in counts {
        if let Some(connections) = connections {
            line.push_str(&format!(" · {what} {}", connections.total()));
        }
    }
    line.push_str(&super::takeover::sessions_moved(last.sessions.unwrap_or(0)));
    line
}
