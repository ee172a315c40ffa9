//! Who is asking, and what they may ask for.
//!
//! A client knows the shared token, or it is a device that was approved and has a token of its own.

mod administration;
mod approval;
mod device;
mod devices;
mod in_force;
mod ledger;
mod locality;
mod origin;
mod paired;
mod pairing;
mod pending;
mod requirement;
mod revocations;
mod rights;
mod scopes;
mod token;
mod watch;

pub(crate) use administration::{AdministrationRefused, Caller};
pub(crate) use device::{Claim, Device, DeviceRefused, Statement};
pub(crate) use devices::Devices;
pub(crate) use in_force::{MayGenerate, TokenInForce, TokenPlaces};
pub(crate) use ledger::LedgerUnusable;
pub(crate) use locality::{Locality, reported_address};
pub(crate) use origin::PageOrigin;
pub(crate) use paired::TokenRefused;
pub(crate) use pairing::{Ask, Issued, Proof, Refused};
pub(crate) use requirement::PairingRequired;
pub(crate) use scopes::{Needs, Scopes};
pub(crate) use token::{Fingerprint, SharedToken, TokenSource, TokenUnusable};
