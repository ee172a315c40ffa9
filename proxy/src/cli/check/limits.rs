//! How much the kernel lets a front and its workers have.

use rustix::process::{Resource, getrlimit};

use super::finding::{Finding, Subject};

/// What a worker needs beside a descriptor for each connection, generously.
const BESIDE_CONNECTIONS: u64 = 64;
/// Below this a worker is soon full: each connection is a descriptor.
const FEW: u64 = 4096;

/// What is in force here; `None` means that nobody can tell, or no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) descriptors: Option<u64>,
    pub(super) queue: Option<u64>,
}

impl Limits {
    pub(super) fn of_this_process() -> Self {
        let queue = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
        Self {
            // The front raises its own limit to this one.
            descriptors: getrlimit(Resource::Nofile).maximum,
            queue: queue.and_then(|text| text.trim().parse().ok()),
        }
    }
}

/// What is found of them.
pub(super) fn of(max_connections: Option<u64>, limits: Limits) -> Vec<Finding> {
    let mut found: Vec<_> = [descriptors(max_connections, limits.descriptors), queue(limits.queue)]
        .into_iter()
        .flatten()
        .collect();
    if found.is_empty() {
        let says = match limits.descriptors {
            Some(descriptors) => format!("{descriptors} descriptors for each worker"),
            None => "descriptors without a limit".to_owned(),
        };
        found.push(Finding::ok(Subject::Limits, says));
    }
    found
}

fn descriptors(max_connections: Option<u64>, limit: Option<u64>) -> Option<Finding> {
    let limit = limit?;
    let advice = "raise the hard limit: LimitNOFILE=infinity in a unit, `ulimit -Hn`, --ulimit nofile= of an engine";
    if let Some(wanted) = max_connections
        && wanted.saturating_add(BESIDE_CONNECTIONS) > limit
    {
        let says =
            format!("--max-connections {wanted} needs more than the {limit} descriptors there are");
        return Some(Finding::warning(Subject::Limits, says, advice));
    }
    (limit < FEW).then(|| {
        let says = format!("a worker can have {limit} descriptors, and each connection is one");
        Finding::warning(Subject::Limits, says, advice)
    })
}

fn queue(limit: Option<u64>) -> Option<Finding> {
    let wanted = u64::try_from(handoff::socket::BACKLOG).unwrap_or_default();
    let limit = limit.filter(|limit| *limit < wanted)?;
    let says = format!(
        "only {limit} connections can wait while nobody accepts: net.core.somaxconn is below {wanted}"
    );
    let advice = format!("sysctl -w net.core.somaxconn={wanted}");
    Some(Finding::warning(Subject::Limits, says, advice))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Grade;
    use super::*;

    fn graded(max: Option<u64>, descriptors: u64, queue: u64) -> Vec<Grade> {
        let limits = Limits { descriptors: Some(descriptors), queue: Some(queue) };
        of(max, limits).iter().map(|finding| finding.grade).collect()
    }

    #[test]
    fn enough_is_fine() {
        assert_eq!(graded(Some(1000), 4096, 4096), [Grade::Ok]);
        assert_eq!(graded(None, 1 << 20, 1 << 16), [Grade::Ok]);
        let unlimited = Limits { descriptors: None, queue: None };
        assert_eq!(of(Some(1 << 30), unlimited)[0].grade, Grade::Ok);
    }

    #[test]
    fn few_descriptors_and_short_queues_are_told() {
        assert_eq!(graded(None, 1024, 4096), [Grade::Warning]);
        assert_eq!(graded(Some(4096), 4096, 4096), [Grade::Warning]);
        assert_eq!(graded(None, 4096, 128), [Grade::Warning]);
        assert_eq!(graded(None, 1024, 128), [Grade::Warning, Grade::Warning]);
    }

    #[test]
    fn this_process_has_a_limit_that_can_be_read() {
        assert!(Limits::of_this_process().queue.is_some());
    }
}
