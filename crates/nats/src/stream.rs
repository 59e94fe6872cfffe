//! The JetStream stream: its configuration, state and contents.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::{ContextBuilder, CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use domain::Timestamp;
use engine::RELAY_EVENTS_MAX;
use engine::relay::{StreamCounts, StreamError, StreamInfo};
use futures_util::TryStreamExt as _;

use crate::limit::RELAY_REPLY_WAIT_MAX;
use crate::subject::{LEDGERS, STREAM, event_of};

/// The window in which the server detects repeated message ids. It is short because the expected last
/// sequence per subject already prevents duplicates, and because messages that are published again after a
/// purge must soon be stored.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(2);

/// Returns a JetStream context.
pub(crate) fn context(client: Client) -> Context {
    ContextBuilder::new()
        .timeout(RELAY_REPLY_WAIT_MAX)
        .ack_timeout(RELAY_REPLY_WAIT_MAX)
        .max_ack_inflight(2 * RELAY_EVENTS_MAX)
        .build(client)
}

/// Returns the stream if it exists.
pub(crate) async fn find(context: &Context) -> Result<Option<Stream>, StreamError> {
    match context.get_stream(STREAM).await {
        Ok(stream) => check_config(stream).map(Some),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(None)
            }
            GetStreamErrorKind::JetStream(error) => Err(map_jetstream_error(&error)),
            _ => Err(map_timeout(context, unavailable(&error)).await),
        },
    }
}

/// Creates the stream. Its first message gets the sequence `first`; servers before 2.10 ignore that and start
/// at 1.
pub(crate) async fn create(context: &Context, replicas: usize, first: u64) -> Result<Stream, StreamError> {
    let created = context.create_stream(stream_config(replicas, first)).await;
    created.map_err(|error| match error.kind() {
        CreateStreamErrorKind::JetStream(error) => match error.error_code() {
            // Another instance has just created it with another first sequence. The next attempt finds it.
            ErrorCode::STREAM_NAME_EXIST => StreamError::Conflict(error.to_string()),
            ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED => StreamError::NeedsOperator(format!(
                "NATS cannot create the stream {STREAM} with {replicas} replicas because it is not a \
                 cluster: use the addresses of a cluster, or --nats-replicas 1"
            )),
            _ => map_jetstream_error(&error),
        },
        _ => unavailable(&error),
    })
}

fn stream_config(replicas: usize, first: u64) -> Config {
    Config {
        name: STREAM.to_owned(),
        description: Some("Every ledger entry of boxoffice, once, in order per event".to_owned()),
        subjects: vec![LEDGERS.to_owned()],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas,
        duplicate_window: DUPLICATE_WINDOW,
        first_sequence: Some(first),
        ..Config::default()
    }
}

/// Rejects a stream that has other subjects or sources, or that discards messages.
fn check_config(stream: Stream) -> Result<Stream, StreamError> {
    let config = &stream.cached_info().config;
    let discards = config.retention != RetentionPolicy::Limits
        || config.discard != DiscardPolicy::New
        || config.max_age != Duration::ZERO
        || config.max_messages_per_subject > 0;
    if config.subjects != [LEDGERS]
        || config.mirror.is_some()
        || config.sources.as_ref().is_some_and(|s| !s.is_empty())
    {
        return Err(StreamError::NeedsOperator(format!(
            "the stream {STREAM} does not belong to boxoffice: its subjects are {:?}, not [\"{LEDGERS}\"]; \
             remove or rename it",
            config.subjects
        )));
    }
    if discards {
        return Err(StreamError::NeedsOperator(format!(
            "the stream {STREAM} discards messages; set limits retention, discard policy new, and no maximum \
             age or messages per subject"
        )));
    }
    Ok(stream)
}

fn map_jetstream_error(error: &async_nats::jetstream::Error) -> StreamError {
    match error.error_code() {
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            jetstream_disabled()
        }
        ErrorCode::CLUSTER_NOT_AVAILABLE | ErrorCode::CLUSTER_NOT_LEADER | ErrorCode::STREAM_OFFLINE => {
            no_leader()
        }
        _ => StreamError::NeedsOperator(format!("NATS rejects the stream {STREAM}: {error}")),
    }
}

pub(crate) fn unavailable(error: &dyn std::fmt::Display) -> StreamError {
    StreamError::Unavailable(error.to_string())
}

fn jetstream_disabled() -> StreamError {
    StreamError::NeedsOperator(
        "NATS has no JetStream for this user; start the server with --jetstream".to_owned(),
    )
}

fn no_leader() -> StreamError {
    StreamError::Unavailable(format!("{STREAM} has no leader; more than half of its servers must run"))
}

/// Classifies a timeout: JetStream is disabled, the stream has no leader, or NATS is unavailable.
async fn map_timeout(context: &Context, unavailable: StreamError) -> StreamError {
    use async_nats::jetstream::context::AccountErrorKind;
    match context.query_account().await {
        Ok(_) => no_leader(),
        Err(error) => match error.kind() {
            AccountErrorKind::JetStreamUnavailable => jetstream_disabled(),
            AccountErrorKind::JetStream(error) => map_jetstream_error(&error),
            _ => unavailable,
        },
    }
}

/// Queries the state of the stream.
pub(crate) async fn info(stream: &Stream) -> Result<StreamInfo, StreamError> {
    parse_info(&stream.get_info().await.map_err(|error| unavailable(&error))?)
}

fn parse_info(info: &Info) -> Result<StreamInfo, StreamError> {
    // A server without a quorum still replies with what it knows, but stores nothing.
    if info.cluster.as_ref().is_some_and(|cluster| cluster.leader.is_none()) {
        return Err(no_leader());
    }
    let micros = i64::try_from(info.created.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
    let created_at =
        Timestamp::from_micros(micros).map_err(|error| StreamError::NeedsOperator(error.to_string()))?;
    Ok(StreamInfo { created_at, last: info.state.last_sequence, messages: info.state.messages })
}

/// Queries the state of the stream and the number of messages per event.
pub(crate) async fn count_by_subject(stream: &Stream) -> Result<StreamCounts, StreamError> {
    let mut all = stream.info_with_subjects(LEDGERS).await.map_err(|error| unavailable(&error))?;
    let mut result = StreamCounts { info: parse_info(&all.info)?, counts: HashMap::new() };
    while let Some((subject, count)) = all.try_next().await.map_err(|error| unavailable(&error))? {
        let event = event_of(&subject);
        let event = event.ok_or_else(|| {
            StreamError::NeedsOperator(format!("the subject {subject} of the stream names no event"))
        })?;
        result.counts.insert(event, count as u64);
    }
    Ok(result)
}
