//! Receiving a request's body: bounded in size, and in how long it may stand still.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};

use super::answer::{self, Response};

/// The largest body that is received, in bytes.
pub(super) const MAX_BODY: usize = 25 * 1024 * 1024;

/// Why a body was not received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UploadFailed {
    /// It is, or would be, larger than [`MAX_BODY`].
    TooLarge,
    /// Nothing more came for too long.
    Stalled,
    /// It ended early, or its framing is wrong.
    Broken,
}

impl UploadFailed {
    /// What the client is told.
    pub(super) fn response(self) -> Response {
        let (status, kind, message) = match self {
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_request_error",
                "Payload too large: a request body may have 26214400 bytes.",
            ),
            Self::Stalled => (
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                "The request body did not arrive in time.",
            ),
            Self::Broken => (
                StatusCode::BAD_REQUEST,
                "invalid_request_error",
                "The request body could not be read.",
            ),
        };
        // What is left of the body would be taken for the next request.
        answer::closing(answer::refusal(status, kind, message))
    }
}

/// Receives a whole body. Each pause may take `stall` at most.
///
/// # Errors
/// [`UploadFailed`]; the rest of the body is unread then.
pub(super) async fn receive(mut body: Incoming, stall: Duration) -> Result<Bytes, UploadFailed> {
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(UploadFailed::TooLarge);
    }
    let mut received = Bytes::new();
    let mut gathered = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout(stall, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(UploadFailed::Broken),
            Ok(None) if gathered.is_empty() => return Ok(received),
            Ok(None) => return Ok(gathered.freeze()),
            Err(_) => return Err(UploadFailed::Stalled),
        };
        // Trailers say nothing we read.
        let Ok(chunk) = frame.into_data() else { continue };
        if gathered.len() + received.len() + chunk.len() > MAX_BODY {
            return Err(UploadFailed::TooLarge);
        }
        // Most bodies come as one chunk, and that one is not copied.
        if received.is_empty() && gathered.is_empty() {
            received = chunk;
        } else {
            gathered.extend_from_slice(&std::mem::take(&mut received));
            gathered.extend_from_slice(&chunk);
        }
    }
}
