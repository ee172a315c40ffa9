//! What a claim is written with: given a [`Front`], when something happens to it, then [`Traffic`],
//! [`Status`] and [`Process`] say what came of it.
//!
//! **Invariants**
//! - A front of one test shares nothing with any other's: directory, socket, ports, environment.
//! - Nothing outlives its test: a dropped [`Front`] ends every process below it, by pid.
//! - Nothing here waits for time to pass: [`eventually`] waits for a value, with a deadline.

mod attached;
pub mod binaries;
mod cli;
mod family;
mod faulty;
mod front;
mod gate;
pub mod http;
mod log;
pub mod moving;
mod patience;
mod process;
mod service_manager;
mod setup;
mod status;
mod takeover;
mod traffic;
mod websocket;

pub use attached::{Attached, CONTAINER, ELSEWHERE, elsewhere_is_there, starts_programs};
pub use cli::Outcome;
pub use faulty::{FAULT_VARIABLE, faulty_worker, sound_worker};
pub use front::{Front, TOKEN};
pub use gate::Gate;
pub use log::Log;
pub use nix::sys::signal::Signal;
pub use patience::{PATIENCE, eventually, soon};
pub use process::{Descriptor, Process, listening_inodes};
pub use service_manager::{Notice, ServiceManager, inheriting};
pub use setup::{Program, Setup};
pub use status::{Generation, Listener, State, Status};
pub use takeover::{RunningTakeover, Takeover};
pub use traffic::{Tally, Traffic};
pub use websocket::{Ending, WebSocket};
