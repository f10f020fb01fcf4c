//! Reading a request's body within its limits.

use crate::BODY_BYTES_MAX;
use crate::fault::Fault;
use axum::body::Body;
use futures::StreamExt;
use std::time::Duration;

/// How much of a body beyond [`BODY_BYTES_MAX`] is read and thrown away, in bytes. A client that is still sending when
/// the connection closes sees a broken pipe instead of our answer.
const DISCARDED_BYTES_MAX: usize = 3 * BODY_BYTES_MAX;

/// Reads a whole body, for at most `wait_max`.
pub(crate) async fn read(body: Body, wait_max: Duration) -> Result<Vec<u8>, Fault> {
    tokio::time::timeout(wait_max, collect(body))
        .await
        .map_err(|_| Fault::request_timeout(wait_max.as_secs()))?
}

async fn collect(body: Body) -> Result<Vec<u8>, Fault> {
    let mut pieces = body.into_data_stream();
    let (mut bytes, mut total) = (Vec::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            Fault::bad_request(
                "body_unreadable",
                format!("the body could not be read: {error}"),
            )
        })?;
        total += piece.len();
        if total <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&piece);
        } else if total <= BODY_BYTES_MAX + DISCARDED_BYTES_MAX {
            bytes = Vec::new();
        } else {
            break;
        }
    }
    if total > BODY_BYTES_MAX {
        Err(Fault::body_too_large(BODY_BYTES_MAX))
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::io;

    /// The code of the fault for a body of these pieces, after which nothing more comes.
    async fn verdict(pieces: Vec<io::Result<Vec<u8>>>, wait_max: Duration) -> &'static str {
        let endless = stream::iter(pieces).chain(stream::pending());
        read(Body::from_stream(endless), wait_max)
            .await
            .unwrap_err()
            .code
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let brief = Duration::from_millis(5);
        assert_eq!(verdict(vec![], brief).await, "request_timeout");
        assert_eq!(
            verdict(vec![Ok(b"{".to_vec())], brief).await,
            "request_timeout"
        );
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_or_never_ends_is_refused() {
        let long = Duration::from_secs(20);
        assert_eq!(
            verdict(vec![Err(io::Error::other("gone"))], long).await,
            "body_unreadable"
        );
        let pieces = || Ok(vec![0; BODY_BYTES_MAX / 2 + 1]);
        let flood = std::iter::repeat_with(pieces).take(8).collect();
        assert_eq!(verdict(flood, long).await, "body_too_large");
    }
}
