//! A new image of the front, from its first instruction to where it is ready.
//!
//! **Invariants**
//! - Nothing is told to a worker, and nothing is closed, before everything the state speaks of is in its place.

use std::fs::File;
use std::io;
use std::process::ExitCode;

use ::handoff::chain;
use ::handoff::fault::{self, Point};

use super::carried::{ComesBack, Image, NotResumed};
use super::fallback;
use super::image::{self, Descriptors, Inheritance};
use super::state::{State, StateFailed};
use crate::front::Front;
use crate::signals;

/// Goes on as the front, if this process is a new image of one.
pub(crate) fn resume() -> Option<ExitCode> {
    let inheritance = image::inheritance()?;
    signals::block();
    fault::arm();
    let outcome =
        fallback::arm(&inheritance).map_err(ResumeFailed::from).and_then(|()| go_on(&inheritance));
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let reason = format!("did not go on with the state: {}", chain(&error));
            let error = fallback::go_back(&inheritance, &reason);
            tracing::error!(reason, %error, "the front cannot go on");
            ExitCode::FAILURE
        }
    })
}

/// Why an image cannot go on.
#[derive(Debug, thiserror::Error)]
enum ResumeFailed {
    #[error(transparent)]
    State { source: StateFailed },
    #[error(transparent)]
    NotResumed {
        #[from]
        source: NotResumed,
    },
    #[error("could not start")]
    Runtime {
        #[from]
        source: io::Error,
    },
}

impl ComesBack {
    /// Only a new image fails as a test tells it to: the old one is there to be come back to.
    fn reach(self, point: Point) {
        if self == Self::No {
            fault::reach(point);
        }
    }
}

fn go_on(inheritance: &Inheritance) -> Result<(), ResumeFailed> {
    fallback::on_panic(inheritance.clone());
    let mut images = Descriptors::take([inheritance.state, inheritance.old])?;
    let file = File::from(images.remove(inheritance.state)?);
    let comes_back = if inheritance.failed.is_none() { ComesBack::No } else { ComesBack::Yes };
    comes_back.reach(Point::ResumeBegun);
    let state = State::read(&file).map_err(|source| ResumeFailed::State { source })?;
    state.settings.log.start();
    // The log has set a hook of its own.
    fallback::on_panic(inheritance.clone());
    comes_back.reach(Point::StateRead);
    let mut descriptors = Descriptors::take(state.descriptors())?;
    crate::runtime::build()?.block_on(async {
        let image = Image::build(state, &mut descriptors, comes_back)?;
        let Image { front, control, words, caller, executed_at_ns } = image;
        let failed = inheritance.failed.as_deref().map(fallback::reason);
        let beginning = |front: &mut Front| {
            comes_back.reach(Point::ResumeReady);
            fallback::disarm();
            descriptors.close_on_exec();
            // From here on nothing leads back.
            drop((file, images));
            ::handoff::signals::unblock_all();
            front.go_on(words, Image::since_exec(executed_at_ns), caller, failed);
        };
        front.run(control, beginning).await?;
        Ok(())
    })
}
