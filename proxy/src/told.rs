//! What the front tells whoever started it: a person, on stdout and once, and a service manager, the picture it gives of
//! itself after everything that happens.

use std::fmt::Write as _;
use std::io;

use handoff::message::GenerationId;
use tracing::warn;

use crate::control::protocol::Outcome;
use crate::front::Front;
use crate::generation::{Course, State};
use crate::outlet::Outlet;
use crate::systemd::inherited::{Inherited, Names};
use crate::systemd::{Phase, Picture};
use crate::timer::Timer;

impl Front {
    /// Gives the listening sockets to the service manager to keep, and closes what it kept and nobody wants.
    pub(crate) fn settle_with_manager(&self, unwanted: Inherited, names: &Names) {
        let held = self.listeners.as_ref().map_or(&[][..], |listeners| &listeners.sockets);
        for (address, name) in unwanted.rest(held) {
            warn!(%address, "inherited and not listened on by what this front was told: closed");
            if let Some(name) = name {
                self.manager.forget(&name);
            }
        }
        self.manager.keep(held, names);
    }

    /// The service manager asks for a reload by SIGHUP (`Type=notify-reload`), or somebody does in its place.
    pub(crate) fn on_reload(&mut self) {
        // It waits for this word whatever becomes of the takeover.
        self.manager.hear_reload();
        self.on_takeover_signal("SIGHUP");
        self.tell_manager();
    }

    /// Tells the service manager what has changed, and sees to it that it hears the rest in time.
    pub(crate) fn tell_manager(&mut self) {
        if !self.manager.is_there() {
            return;
        }
        self.manager.show(self.picture());
        match self.manager.due_at() {
            Some(at) => self.timers.insert(Timer::Manager, at),
            None => self.timers.remove(&Timer::Manager),
        };
    }

    /// Tells whoever started the front, on stdout, what to type next.
    pub(crate) fn greet(&self, id: GenerationId) {
        let Some(listeners) = &self.listeners else { return };
        let addresses: Vec<String> =
            listeners.addresses().iter().map(|address| address.to_string()).collect();
        let addresses = addresses.join(" and ");
        let mut lines = vec![format!("holdfast {} listens on {addresses}", crate::VERSION)];
        lines.extend(self.workers.get(id).iter().flat_map(|worker| worker.greeting.clone()));
        let page =
            self.admin.iter().map(|keeper| format!("status page: http://{}/", keeper.address));
        lines.extend(page);
        lines.push(match self.generations.startable() {
            Some(_) => "replace the worker at any time with: holdfast takeover".to_owned(),
            None => "the next worker that attaches takes over".to_owned(),
        });
        // A stdout that is closed or full is no reason to let go of the port.
        if let Ok(outlet) = Outlet::beside(io::stdout()) {
            outlet.offer(format!("{}\n", lines.join("\n")).as_bytes());
        }
    }

    fn picture(&self) -> Picture {
        let is_policy = |timer: &Timer| matches!(timer, Timer::Policy(_));
        let deadlines = self.timers.iter().filter(|(timer, _)| is_policy(timer));
        let waits_until = deadlines.map(|(_, at)| *at).max();
        Picture { phase: self.phase(), status: self.line(), waits_until }
    }

    fn phase(&self) -> Phase {
        let was_ready = self.manager.was_ready() || self.generations.serving().is_some();
        let takes_over = self.generations.pending.is_some()
            || matches!(self.generations.course, Course::Takeover(_));
        match &self.generations.course {
            Course::Leaving => Phase::Stopping,
            _ if !was_ready => Phase::Starting,
            _ if takes_over => Phase::Reloading,
            _ => Phase::Ready,
        }
    }

    /// `serving g7; draining g6; takeover 3: soaking`.
    fn line(&self) -> String {
        let generations = &self.generations;
        let mut line =
            if generations.course == Course::Leaving { "stopping" } else { "" }.to_owned();
        let mut living: Vec<_> = generations.living.iter().map(|(id, g)| (*id, g.state)).collect();
        // Who serves comes first.
        living.sort_by_key(|(_, state)| *state != State::Serving);
        for (id, state) in &living {
            separate(&mut line);
            let _ = write!(line, "{} {id}", state.word());
        }
        if living.is_empty() && generations.course != Course::Leaving {
            line.push_str(if generations.awaits_worker() {
                "nobody serves; waits for a worker to attach"
            } else {
                "nobody serves; the next start waits"
            });
        }
        if let Course::Takeover(takeover) = &generations.course {
            separate(&mut line);
            let _ = write!(line, "takeover {}: {}", takeover.number.0, takeover.step.word());
        } else if generations.pending.is_some() {
            separate(&mut line);
            line.push_str("a takeover waits");
        } else if let Some(reason) = self.rolled_back() {
            separate(&mut line);
            let _ = write!(line, "the last takeover was rolled back: {reason}");
        }
        line
    }

    fn rolled_back(&self) -> Option<String> {
        let last = self.story.last_takeover()?;
        (last.outcome == Outcome::RolledBack).then_some(last.reason?)
    }
}

fn separate(line: &mut String) {
    if !line.is_empty() {
        line.push_str("; ");
    }
}
