//! What stands behind the relay's door: the stream on NATS, hints between instances, and announcements to the
//! original service's subscribers.

use std::collections::BTreeSet;

use async_nats::Subscriber;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::Stream as JetStream;
use async_trait::async_trait;
use domain::EventId;
use engine::RELAY_GROWN_MAX;
use engine::relay::{Bell, Glance, Last, Receipt, Stored, Stream, Survey, Told, Trouble};
use futures_util::StreamExt as _;
use store::{Cause, Fault, Recorded};

use super::subject::{GROWN, STREAM, ledger};
use super::{Nats, message, stream};

#[async_trait]
impl Bell for Nats {
    fn is_up(&self) -> bool {
        self.is_connected()
    }

    async fn open(&self) -> Result<Box<dyn Stream>, Trouble> {
        if !self.is_up() {
            return Err(Trouble::Away("no connection".to_owned()));
        }
        let context = stream::context(self.client());
        let opened = stream::open(&context, true).await?;
        let stream = opened.ok_or_else(|| Trouble::Away("no stream".to_owned()))?;
        let hints = self.client().subscribe(GROWN).await.map_err(|error| away(&error))?;
        Ok(Box::new(Opened { context, stream, hints }))
    }

    async fn hint(&self, grown: BTreeSet<EventId>) {
        let ids: Vec<String> = grown.iter().map(ToString::to_string).collect();
        let _ = self.client().publish(GROWN, ids.join(",").into()).await;
    }

    async fn announce(&self, recorded: &Recorded) {
        if let Some((subject, payload)) = message::announcement(recorded) {
            let headers = message::headers(recorded);
            let _ = self.client().publish_with_headers(subject, headers, payload.into()).await;
        }
    }
}

/// The stream during one turn of the relay.
struct Opened {
    context: Context,
    stream: JetStream,
    hints: Subscriber,
}

#[async_trait]
impl Stream for Opened {
    async fn hinted(&mut self) -> BTreeSet<EventId> {
        match self.hints.next().await {
            Some(hint) => events_in(&hint.payload),
            None => std::future::pending().await,
        }
    }

    async fn survey(&self) -> Result<Survey, Trouble> {
        stream::survey(&self.stream).await
    }

    async fn glance(&self) -> Result<Option<Glance>, Trouble> {
        match stream::open(&self.context, false).await? {
            Some(found) => stream::glance(&found).await.map(Some),
            None => Ok(None),
        }
    }

    async fn last_of(&self, event: EventId) -> Result<Option<Told>, Trouble> {
        let found = self.stream.get_last_raw_message_by_subject(&ledger(event)).await;
        Ok(message::told(&found.map_err(|error| away(&error))?.payload))
    }

    async fn append(&self, recorded: &Recorded, after: Option<Last>) -> Result<Receipt, Trouble> {
        let (event, seq) = (recorded.entry.event_id, recorded.entry.seq);
        let payload = message::render(recorded).map_err(|error| Fault::Broken(Cause::new(error)))?;
        let mut message = PublishMessage::build()
            .headers(message::headers(recorded))
            .message_id(message::id(event, seq))
            .expected_stream(STREAM);
        if let Some(last) = after {
            message = message.expected_last_sequence(last.sequence);
            if let Some((event, seq)) = last.entry {
                message = message.expected_last_message_id(message::id(event, seq));
            }
        }
        let message = message.header("Content-Type", "application/cloudevents+json").payload(payload.into());
        let sent = self.context.send_publish(ledger(event), message).await;
        Ok(Box::pin(receipt(sent.map_err(|error| away(&error))?)))
    }
}

/// What the stream says of a message.
async fn receipt(acknowledged: PublishAckFuture) -> Result<Stored, Trouble> {
    match acknowledged.await {
        Ok(ack) => Ok(Stored { sequence: ack.sequence, duplicate: ack.duplicate }),
        Err(error) => Err(match error.kind() {
            PublishErrorKind::WrongLastSequence
            | PublishErrorKind::WrongLastMessageId
            | PublishErrorKind::StreamNotFound => Trouble::Changed,
            PublishErrorKind::Other => Trouble::Operator(format!("NATS refuses messages: {}", whole(&error))),
            _ => away(&error),
        }),
    }
}

pub(super) fn away(error: &dyn std::fmt::Display) -> Trouble {
    Trouble::Away(error.to_string())
}

/// An error with what lies behind it.
fn whole(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn events_in(payload: &[u8]) -> BTreeSet<EventId> {
    let text = std::str::from_utf8(payload).unwrap_or_default();
    text.split(',').filter_map(|id| id.parse().ok()).take(RELAY_GROWN_MAX).collect()
}
