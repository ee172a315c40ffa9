//! How one that waited becomes a worker of this front.

use std::sync::Arc;

use ::handoff::message::{GenerationId, Hello};

use super::{Attachments, Came};
use crate::event::{Action, Event, Exit, Failure};
use crate::front::Front;
use crate::listener::Listeners;

/// Who comes to the attach socket, if there is one.
pub(crate) async fn came(attach: &mut Option<Attachments>) -> Came {
    match attach {
        Some(attach) => attach.came().await,
        None => std::future::pending().await,
    }
}

impl Front {
    /// Introduces the front to the first one that waits, as this generation.
    pub(crate) fn join(
        &mut self,
        mut hello: Hello,
        listeners: Arc<Listeners>,
    ) -> Result<(), Failure> {
        let Some(applicant) = self.attach.as_mut().and_then(Attachments::take_fresh) else {
            return Err(Failure::NotStarted { reason: "the worker that waited has left".into() });
        };
        // It finds a front by itself, and this directory may be nowhere for it.
        hello.rescue = None;
        self.rescue.expect_attached(hello.generation);
        self.workers.introduce_attached(applicant, hello, listeners, self.words.0.clone());
        Ok(())
    }

    /// Goes on with a worker that had lost its link.
    pub(crate) fn take_back(&mut self, id: GenerationId) -> Vec<Action> {
        match self.attach.as_mut().and_then(|attach| attach.take(id)) {
            Some((applicant, account)) => {
                self.rescue.expect(id);
                self.rescue.expect_attached(id);
                self.workers.take_back(applicant, &account, self.words.0.clone());
                if account.stops_only_by_draining {
                    self.generations.stops_only_by_draining(id);
                }
            }
            None => {
                return self.generations.on(Event::Exited { generation: id, exit: Exit::Unknown });
            }
        }
        let next = self.next_waiting();
        self.generations.on(next)
    }
}
