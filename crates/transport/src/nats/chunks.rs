//! Bodies that are larger than a message.

use async_nats::{PublishErrorKind, Subject};
use bytes::Bytes;

use super::envelope::encode_chunk;
use super::link::Session;

/// The largest chunk of a body, so that other messages fit between the chunks of a large one.
const CHUNK: usize = 256 << 10;

/// Sends a body in chunks.
pub(super) async fn send_chunks(
    session: &Session,
    subject: &Subject,
    reply: Option<&Subject>,
    body: &Bytes,
) -> Result<(), PublishErrorKind> {
    // Room for the header with the offset.
    let size = session.client.max_payload().saturating_sub(128).clamp(1, CHUNK);
    for offset in (0..body.len()).step_by(size) {
        let chunk = body.slice(offset..body.len().min(offset + size));
        let (subject, headers) = (subject.clone(), encode_chunk(offset));
        let sent = match reply {
            Some(reply) => session.client.publish_with_reply_and_headers(subject, reply.clone(), headers, chunk).await,
            None => session.client.publish_with_headers(subject, headers, chunk).await,
        };
        sent.map_err(|error| error.kind())?;
    }
    Ok(())
}
