//! The relay's event bus on NATS: the JetStream stream, wake-ups between instances, and notifications for
//! subscribers of the MongoDB booking service.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::message;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream as JetStream};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{Client, Subscriber};
use async_trait::async_trait;
use domain::EventId;
use engine::RELAY_WAKEUPS_MAX;
use engine::relay::{EntryId, EventBus, PublishAck, Stream, StreamCounts, StreamError, StreamInfo};
use futures_util::StreamExt as _;
use store::{Cause, EntryWithBooking, Fault};

use crate::connection::Nats;
use crate::connection_error::LastError;
use crate::stream::unavailable;
use crate::subject::{STREAM, WAKEUP, ledger};
use crate::{notification, stream};

#[async_trait]
impl EventBus for Nats {
    fn is_up(&self) -> bool {
        self.is_connected()
    }

    async fn open(&self, first: u64) -> Result<Box<dyn Stream>, StreamError> {
        if !self.is_up() {
            return Err(StreamError::Unavailable("no connection".to_owned()));
        }
        let connection = Connection::current(self.client());
        let context = stream::context(self.client());
        let stream = match stream::find(&context).await? {
            Some(stream) => stream,
            None => stream::create(&context, self.replicas(), first).await?,
        };
        let wakeups = self.client().subscribe(WAKEUP).await.map_err(|error| unavailable(&error))?;
        let connection_error = self.connection_error.clone();
        Ok(Box::new(JetStreamSession { connection, connection_error, context, stream, wakeups }))
    }

    async fn wake(&self, events: BTreeSet<EventId>) {
        let ids: Vec<String> = events.iter().map(ToString::to_string).collect();
        let _ = self.client().publish(WAKEUP, ids.join(",").into()).await;
    }

    async fn publish_legacy_notification(&self, entry: &EntryWithBooking) {
        if let Some((subject, payload)) = notification::legacy(entry) {
            let headers = notification::headers(entry);
            let _ = self.client().publish_with_headers(subject, headers, payload.into()).await;
        }
    }
}

/// One connection of the client, which reconnects automatically.
struct Connection {
    client: Client,
    /// Number of connections that the client had made, including this one.
    number: u64,
}

impl Connection {
    fn current(client: Client) -> Self {
        let number = connections(&client);
        Self { client, number }
    }

    /// Returns true if the client has not reconnected since. State that was read over an earlier connection
    /// may not hold for the server behind a later one, which may have lost its last messages in a power cut.
    fn is_current(&self) -> bool {
        connections(&self.client) == self.number
    }
}

fn connections(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

/// The stream during one session of the relay.
struct JetStreamSession {
    connection: Connection,
    connection_error: Arc<LastError>,
    context: Context,
    stream: JetStream,
    wakeups: Subscriber,
}

#[async_trait]
impl Stream for JetStreamSession {
    async fn next_wakeup(&mut self) -> BTreeSet<EventId> {
        match self.wakeups.next().await {
            Some(wakeup) => parse_wakeup(&wakeup.payload),
            None => std::future::pending().await,
        }
    }

    async fn count_by_subject(&self) -> Result<StreamCounts, StreamError> {
        stream::count_by_subject(&self.stream).await
    }

    async fn info(&self) -> Result<Option<StreamInfo>, StreamError> {
        match stream::find(&self.context).await? {
            Some(stream) => stream::info(&stream).await.map(Some),
            None => Ok(None),
        }
    }

    async fn last_message_of(&self, event: EventId) -> Result<Option<(u64, EntryId)>, StreamError> {
        match self.stream.get_last_raw_message_by_subject(&ledger(event)).await {
            Ok(found) => match message::parse_entry_id(&found.payload) {
                Some(entry) => Ok(Some((found.sequence, entry))),
                None => Err(StreamError::NeedsOperator(format!(
                    "the last message of {event} on the stream is not a ledger entry"
                ))),
            },
            Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn append(
        &self,
        entry: &EntryWithBooking,
        expected_last: Option<u64>,
    ) -> Result<PublishAck, StreamError> {
        let (event, seq) = (entry.entry.event_id, entry.entry.seq);
        let payload = message::render(entry).map_err(|error| Fault::Broken(Cause::new(error)))?;
        let mut message = PublishMessage::build()
            .headers(notification::headers(entry))
            .message_id(message::id(event, seq))
            .expected_stream(STREAM);
        if let Some(sequence) = expected_last {
            message = message.expected_last_subject_sequence(sequence);
        }
        let message = message.header("Content-Type", message::CONTENT_TYPE).payload(payload.into());
        if !self.connection.is_current() {
            return Err(StreamError::Conflict("NATS has reconnected".to_owned()));
        }
        let ack = self
            .context
            .send_publish(ledger(event), message)
            .await
            .map_err(|error| map_publish_error(&error))?;
        let ack = ack.await.map_err(|error| map_publish_error(&error))?;
        self.connection_error.on_publish_ok();
        Ok(PublishAck { sequence: ack.sequence, duplicate: ack.duplicate })
    }
}

/// Classifies the error of a publish.
fn map_publish_error(error: &PublishError) -> StreamError {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<async_nats::jetstream::Error>());
    match (error.kind(), cause.map(async_nats::jetstream::Error::error_code)) {
        (PublishErrorKind::WrongLastSequence | PublishErrorKind::StreamNotFound, _)
        // Another message of this event, or this very message, is being replicated.
        | (
            _,
            Some(
                ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT | ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT,
            ),
        ) => StreamError::Conflict(with_source(error)),
        (_, Some(ErrorCode::CLUSTER_NOT_AVAILABLE | ErrorCode::STREAM_TOO_MANY_REQUESTS)) => {
            StreamError::Unavailable(with_source(error))
        }
        (PublishErrorKind::Other, _) => {
            StreamError::NeedsOperator(format!("NATS rejects messages: {}", with_source(error)))
        }
        _ => unavailable(error),
    }
}

/// Formats an error with its source.
fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Parses the comma-separated event ids of a wake-up. Ids that cannot be parsed are skipped.
fn parse_wakeup(payload: &[u8]) -> BTreeSet<EventId> {
    let text = std::str::from_utf8(payload).unwrap_or_default();
    text.split(',').filter_map(|id| id.parse().ok()).take(RELAY_WAKEUPS_MAX).collect()
}
