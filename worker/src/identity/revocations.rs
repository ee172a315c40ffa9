//! Who may no longer be connected: found by comparing two tables, whoever changed them, and told to the
//! connections that are open.

use tokio::sync::broadcast;

use super::paired::Paired;

/// How many revocations a connection may be late with; one that is later has to assume the worst.
pub(super) const LATEST: usize = 256;

/// A device, or one role of it, that may no longer be connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revoked {
    /// Which device.
    pub(crate) device_id: String,
    /// In which role; `None` means all of them.
    pub(crate) role: Option<String>,
}

/// Tells one connection that its device may no longer be connected.
#[derive(Debug)]
pub(crate) struct Revocations {
    receiver: broadcast::Receiver<Revoked>,
}

impl Revocations {
    /// Those that are sent here from now on.
    pub(super) fn of_all(sender: &broadcast::Sender<Revoked>) -> Self {
        Self { receiver: sender.subscribe() }
    }

    /// Ends when this device may no longer be connected in this role. Cancel safe.
    pub(crate) async fn of(&mut self, device_id: &str, role: &str) {
        loop {
            match self.receiver.recv().await {
                Ok(revoked) => {
                    let same_role = revoked.role.as_deref().is_none_or(|revoked| revoked == role);
                    if revoked.device_id == device_id && same_role {
                        return;
                    }
                }
                // It may have been among those that were missed; whoever is still paired comes back.
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// What of `former` may no longer be connected in `present`.
///
/// An approval brings a new token as well, and disturbs nobody.
pub(super) fn between(former: &Paired, present: &Paired) -> Vec<Revoked> {
    let mut revoked = Vec::new();
    for (id, before) in former {
        let Some(after) = present.get(id).filter(|after| after.public_key == before.public_key)
        else {
            revoked.push(Revoked { device_id: id.clone(), role: None });
            continue;
        };
        let approved_again = before.approved_at_ms != after.approved_at_ms;
        for (role, token) in before.tokens.iter().flatten().filter(|(_, token)| token.is_active()) {
            let stays = after.acts_as(role)
                && (approved_again
                    || after.token(role).is_some_and(|present| present.token == token.token));
            if !stays {
                revoked.push(Revoked { device_id: id.clone(), role: Some(role.clone()) });
            }
        }
    }
    revoked
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::identity::paired::tests::{file, paired};

    #[test]
    fn who_lost_what_is_told_apart_from_who_was_approved_again() {
        let gone = |present: &Value| between(&paired(&file()), &paired(present));
        let (device_id, role) = ("d1".to_owned(), Some("operator".to_owned()));
        let all = vec![Revoked { device_id: device_id.clone(), role: None }];
        let operator = vec![Revoked { device_id, role }];
        assert_eq!(gone(&file()), []);
        assert_eq!(gone(&json!({})), all);
        let with = |change: fn(&mut Value)| {
            let mut file = file();
            change(&mut file["d1"]);
            gone(&file)
        };
        assert_eq!(with(|d| d["publicKey"] = json!("k2")), all);
        assert_eq!(with(|d| d["tokens"]["operator"]["token"] = json!("secret-2")), operator);
        assert_eq!(with(|d| d["tokens"]["operator"]["revokedAtMs"] = json!(9)), operator);
        assert_eq!(with(|d| d["tokens"] = json!({})), operator);
        assert_eq!(with(|d| (d["role"], d["roles"]) = (json!("node"), json!(["node"]))), operator);
        assert_eq!(with(|d| d["displayName"] = json!("x")), []);
        let approved_again = with(|d| {
            d["tokens"]["operator"]["token"] = json!("secret-2");
            d["approvedAtMs"] = json!(7);
        });
        assert_eq!(approved_again, []);
    }

    #[tokio::test]
    async fn a_connection_hears_of_its_own_device_and_role_and_assumes_the_worst_when_late() {
        let sender = broadcast::Sender::new(2);
        let mut heard = [("d1", "operator"), ("d1", "node"), ("d2", "operator")]
            .map(|(device_id, role)| (Revocations::of_all(&sender), device_id, role));
        let send = |device_id: &str, role: Option<&str>| {
            let (device_id, role) = (device_id.to_owned(), role.map(str::to_owned));
            sender.send(Revoked { device_id, role }).unwrap();
        };
        let mut over = async || {
            let mut over = Vec::new();
            for (revocations, device_id, role) in &mut heard {
                let of = revocations.of(device_id, role);
                over.push(tokio::time::timeout(std::time::Duration::ZERO, of).await.is_ok());
            }
            over
        };
        assert_eq!(over().await, [false, false, false]);
        send("d1", Some("node"));
        assert_eq!(over().await, [false, true, false]);
        send("d1", None);
        assert_eq!(over().await, [true, true, false]);
        for other in ["d3", "d4", "d5"] {
            send(other, None);
        }
        assert_eq!(over().await, [true, true, true]);
    }
}
