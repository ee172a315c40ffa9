//! What the JSON of a job looks like. The parts whose shape depends on their kind stand alone, each in an
//! object of its own, so that complaints name their place in the job.

use crate::shape::{Field, Shape};

const fn wrapped(fields: &'static [Field]) -> Shape {
    Shape::Object(fields)
}

const KINDS: Shape = Shape::OneOf(&["at", "every", "cron"]);
pub(super) static AT: Shape = wrapped(&[Field::required(
    "schedule",
    Shape::Object(&[Field::required("kind", KINDS), Field::required("at", Shape::Text)]),
)]);
pub(super) static EVERY: Shape = wrapped(&[Field::required(
    "schedule",
    Shape::Object(&[
        Field::required("kind", KINDS),
        Field::required("everyMs", Shape::Integer { least: 1 }),
        Field::optional("anchorMs", Shape::Integer { least: 0 }),
    ]),
)]);
pub(super) static CRON: Shape = wrapped(&[Field::required(
    "schedule",
    Shape::Object(&[
        Field::required("kind", KINDS),
        Field::required("expr", Shape::Text),
        Field::optional("tz", Shape::Text),
        Field::optional("staggerMs", Shape::Integer { least: 0 }),
    ]),
)]);

pub(super) static EVENT: Shape = wrapped(&[Field::required(
    "payload",
    Shape::Object(&[Field::required("kind", Shape::AnyText), Field::optional("text", Shape::Text)]),
)]);
pub(super) static TURN: Shape = wrapped(&[Field::required(
    "payload",
    Shape::Object(&[
        Field::required("kind", Shape::OneOf(&["systemEvent", "agentTurn"])),
        Field::optional("message", Shape::Text),
        Field::optional("model", Shape::AnyText),
        Field::optional("fallbacks", Shape::List(&Shape::AnyText)),
        Field::optional("thinking", Shape::AnyText),
        Field::optional("timeoutSeconds", Shape::Integer { least: 0 }),
        Field::optional("allowUnsafeExternalContent", Shape::Flag),
        Field::optional("lightContext", Shape::Flag),
        Field::optional("toolsAllow", Shape::List(&Shape::AnyText)),
    ]),
)]);

const FAILURE_MODE: Shape = Shape::OneOf(&["announce", "webhook"]);
pub(super) static DELIVERY: Shape = wrapped(&[Field::required(
    "delivery",
    Shape::Object(&[
        Field::optional("mode", Shape::OneOf(&["none", "announce", "webhook"])),
        Field::optional("channel", Shape::Text),
        Field::optional("to", Shape::Text),
        Field::optional("threadId", Shape::Anything),
        Field::optional("accountId", Shape::Text),
        Field::optional("bestEffort", Shape::Flag),
        Field::optional(
            "failureDestination",
            Shape::Object(&[
                Field::optional("channel", Shape::Text),
                Field::optional("to", Shape::Text),
                Field::optional("accountId", Shape::Text),
                Field::optional("mode", FAILURE_MODE),
            ]),
        ),
    ]),
)]);
pub(super) static ALERT: Shape = wrapped(&[Field::required(
    "failureAlert",
    Shape::Object(&[
        Field::optional("after", Shape::Integer { least: 1 }),
        Field::optional("channel", Shape::Text),
        Field::optional("to", Shape::Text),
        Field::optional("cooldownMs", Shape::Integer { least: 0 }),
        Field::optional("includeSkipped", Shape::Flag),
        Field::optional("mode", FAILURE_MODE),
        Field::optional("accountId", Shape::Text),
    ]),
)]);

const WAKE: Shape = Shape::OneOf(&["next-heartbeat", "now"]);
const MISSED: Shape = Shape::OneOf(&["once", "skip"]);
pub(super) static JOB: Shape = Shape::Object(&[
    Field::required("name", Shape::Text),
    Field::required("schedule", Shape::Map(&Shape::Anything)),
    Field::required("sessionTarget", Shape::Text),
    Field::required("wakeMode", WAKE),
    Field::required("payload", Shape::Map(&Shape::Anything)),
    Field::optional("description", Shape::AnyText),
    Field::optional("enabled", Shape::Flag),
    Field::optional("deleteAfterRun", Shape::Flag),
    Field::optional("agentId", Shape::Text),
    Field::optional("sessionKey", Shape::Text),
    Field::optional("delivery", Shape::Map(&Shape::Anything)),
    Field::optional("failureAlert", Shape::Anything),
    Field::optional("missedRuns", MISSED),
]);
pub(super) static PATCH: Shape = Shape::Object(&[
    Field::optional("name", Shape::Text),
    Field::optional("schedule", Shape::Map(&Shape::Anything)),
    Field::optional("sessionTarget", Shape::Text),
    Field::optional("wakeMode", WAKE),
    Field::optional("payload", Shape::Map(&Shape::Anything)),
    Field::optional("description", Shape::AnyText),
    Field::optional("enabled", Shape::Flag),
    Field::optional("deleteAfterRun", Shape::Flag),
    Field::optional("agentId", Shape::Text),
    Field::optional("sessionKey", Shape::Text),
    Field::optional("delivery", Shape::Map(&Shape::Anything)),
    Field::optional("failureAlert", Shape::Anything),
    Field::optional("missedRuns", MISSED),
]);
