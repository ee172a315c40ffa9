//! What a keeper does for a turn: the session that is there answers, or another one, or a program that ends with it.
//!
//! **Invariants**
//! - A session that was started for something else is gone before the next one is started.
//! - A turn is asked again only if its program cannot have heard of it, or does not know its conversation.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tracing::{debug, info};

use super::super::child::Manner;
use super::super::codec::{Answer, user_line};
use super::super::failure::CliFailure;
use super::super::launch::Launcher;
use super::super::program::Asked;
use super::super::reliability::Beginning;
use super::super::session::{Event, Session};
use super::super::turn::{Fragment, Over, Reading, listen};
use super::Inner;

/// Has a session answer, or a new one if it is gone or was started for something else. The session, if it lives on.
pub(super) async fn turn(
    pool: &Inner,
    session: Option<Session>,
    asked: Box<Asked>,
    fragments: mpsc::Sender<Fragment>,
) -> Option<Session> {
    let key = asked.session.clone();
    let launcher = pool.launcher.load_full();
    let asked = Box::new(asked.with_skills().await);
    let mut session = still_fit(pool, &launcher, session, &asked).await;
    let mut known = pool.known(&asked);
    loop {
        let was_there = session.is_some();
        let (mut current, beginning) = match session.take() {
            Some(current) => (current, Beginning::Resumed),
            None => match launcher.launch(Asked::clone(&asked), known.take()).await {
                Ok(launched) => launched,
                Err(failure) => {
                    tell(&fragments, Fragment::Failed(failure)).await;
                    return None;
                }
            },
        };
        current.begin_turn();
        let is_new = !was_there && beginning == Beginning::Fresh;
        current.say(&user_line(&asked.told(is_new)));
        let mut answer = Answer::default();
        let limits = launcher.limits(&asked, beginning);
        let over = listen(&mut current, limits, Reading::Live, &mut answer, &fragments).await;
        current.end_turn(answer.session_id());
        if was_there
            && !answer.has_begun()
            && matches!(over, Over::Failed(CliFailure::Ended { .. }))
        {
            debug!(
                session = key,
                "a CLI session ended before it heard of its turn; another has it"
            );
            current.end(Manner::Terminate, pool.keeping.patience).await;
            continue;
        }
        if beginning == Beginning::Resumed && !answer.has_text() && is_unknown_there(&over) {
            info!(session = key, "a CLI does not know its conversation any more; it begins anew");
            pool.state().shelf.forget(&asked.life);
            current.end(Manner::Terminate, pool.keeping.patience).await;
            continue;
        }
        if let Some(conversation) = current.conversation() {
            pool.state().shelf.remember(&asked.life, conversation);
        }
        match over {
            Over::Answered | Over::Refused(_) => {
                // Before its end is told: who hears of it may ask again at once.
                pool.state().shelf.rest(&key, Instant::now());
                tell(&fragments, last(over, &answer)).await;
                return Some(current);
            }
            Over::Failed(failure) => {
                tell(&fragments, Fragment::Failed(failure)).await;
                current.end(Manner::Interrupt, pool.keeping.patience).await;
                return None;
            }
            Over::Cancelled => {
                current.end(Manner::Interrupt, pool.keeping.patience).await;
                return None;
            }
        }
    }
}

/// The session, if it lives and was started for this.
async fn still_fit(
    pool: &Inner,
    launcher: &Launcher,
    session: Option<Session>,
    asked: &Asked,
) -> Option<Session> {
    let mut session = session?;
    // What it has said until now is of no turn; that it has ended may be news.
    let mut is_gone = false;
    while let Some(event) = session.next().now_or_never() {
        if matches!(event, Event::Gone | Event::TooLong(_)) {
            is_gone = true;
            break;
        }
    }
    if !is_gone && session.fingerprint() == launcher.fingerprint(asked) {
        return Some(session);
    }
    session.end(Manner::Terminate, pool.keeping.patience).await;
    None
}

fn last(over: Over, answer: &Answer) -> Fragment {
    match over {
        Over::Refused(said) => Fragment::Failed(CliFailure::Refused { said }),
        Over::Failed(failure) => Fragment::Failed(failure),
        Over::Cancelled => Fragment::Failed(CliFailure::Closed),
        Over::Answered => Fragment::End { usage: answer.usage() },
    }
}

/// Says how a turn has ended, unless nobody listens.
async fn tell(fragments: &mpsc::Sender<Fragment>, fragment: Fragment) {
    let _ = fragments.send(fragment).await;
}

/// Whether a program that was to go on with a conversation says that it has none of that name.
fn is_unknown_there(over: &Over) -> bool {
    let said = match over {
        Over::Refused(said) => said,
        Over::Failed(CliFailure::Ended { stderr, .. }) => stderr,
        Over::Answered | Over::Failed(_) | Over::Cancelled => return false,
    };
    said.to_lowercase().contains("no conversation found")
}

/// A turn of a program that ends with it.
pub(super) async fn one_shot(pool: Arc<Inner>, asked: Asked, fragments: mpsc::Sender<Fragment>) {
    let launcher = pool.launcher.load_full();
    let asked = asked.with_skills().await;
    let known = pool.known(&asked);
    let (mut session, beginning) = match launcher.launch(asked.clone(), known).await {
        Ok(launched) => launched,
        Err(failure) => return tell(&fragments, Fragment::Failed(failure)).await,
    };
    let backend = &launcher.backend;
    let output = match beginning {
        Beginning::Resumed => backend.resume_output.unwrap_or(backend.output),
        Beginning::Fresh => backend.output,
    };
    let mut answer = Answer::default();
    let limits = launcher.limits(&asked, beginning);
    let reading = Reading::OneShot(output);
    let over = listen(&mut session, limits, reading, &mut answer, &fragments).await;
    session.end_turn(answer.session_id());
    if let (Over::Answered, Some(conversation)) = (&over, session.conversation()) {
        pool.state().shelf.remember(&asked.life, conversation);
    }
    let manner = match &over {
        // It has said all; with some programs that is a moment before they end.
        Over::Answered | Over::Refused(_) => Manner::Terminate,
        Over::Failed(_) | Over::Cancelled => Manner::Interrupt,
    };
    let last = last(over, &answer);
    session.end(manner, pool.keeping.patience).await;
    // Its directory is gone by then.
    tell(&fragments, last).await;
}
