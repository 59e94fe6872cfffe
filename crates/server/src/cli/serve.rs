//! `boxoffice serve`: where the parts are put together.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use engine::relay::Ground;
use engine::{Engine, Policy, Ports, Publish, Silent, SystemClock, SystemIds};
use futures_util::future::OptionFuture;
use store::Store;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Failure, database};
use crate::auth::Tokens;
use crate::config::{DatabaseUrl, LogFormat, Serve, wants_colours};
use crate::http::{self, App};
use crate::nats::Nats;
use crate::shared::Crowd;
use crate::telemetry::Telemetry;

/// How long a start waits for Redis before it goes on without.
const REDIS_PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn run(args: &Serve) -> Result<ExitCode, Failure> {
    log(args.log, args.log_format);
    let url = args.database.url();
    let store = database::open(&url, !args.no_migrate).await?;
    let crowd = crowd(args, &url).await?;
    let nats = nats(&args.nats).await?;
    let publish = nats.as_ref().map(|nats| nats.relay.clone() as Arc<dyn Publish>);
    let (told, lock) = (store.clone(), crowd.lock.clone());
    let publish = publish.unwrap_or_else(|| Arc::new(Silent));
    let app = assemble(store, args.identity.tokens(), args.policy(), crowd, publish);
    let listener = listen(args.listen).await?;
    let metrics = match args.metrics_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let app = App { nats, trusted_proxies: args.trusted_proxies.clone().into(), ..app };
    app.engine.start_chores(args.sweep_every);
    tracing::info!(address = %listener.local_addr()?, database = %url, "ready");
    let served = serve(listener, metrics, app.clone(), args.shutdown_timeout);
    match app.nats {
        None => served.await,
        // It ends with what it serves, which goes first: what was committed last is told, too.
        Some(nats) => {
            let (clock, ids) = (app.clock.clone(), app.ids.clone());
            let ground = Ground { store: told, lock, clock, ids, bell: nats.clone() };
            tokio::select! { biased; ended = served => ended, never = nats.relay.run(&ground) => never }
        }
    }
}

/// Logs to standard error, in colours where a person reads it.
pub(super) fn log(level: tracing::Level, format: LogFormat) {
    let colours = std::io::stderr().is_terminal() && wants_colours();
    let log = tracing_subscriber::fmt().with_max_level(level).with_ansi(colours).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Limits and locks as the operator wants them. A Redis that is away now may come later.
async fn crowd(args: &Serve, database: &DatabaseUrl) -> Result<Crowd, Failure> {
    let many = matches!(database, DatabaseUrl::Postgres(_));
    let Some(options) = args.redis.options(&SystemIds).map_err(Failure::Failed)? else {
        if many {
            tracing::warn!("no --redis: beside other instances each counts rate limits for itself");
        }
        return Ok(Crowd::local());
    };
    let crowd = Crowd::shared(options, args.on_redis_down, many);
    if let Some(shared) = &crowd.shared
        && timeout(REDIS_PATIENCE, shared.redis.up()).await.is_err()
    {
        let (redis, why) = (args.redis.public(), shared.redis.why_down());
        tracing::warn!(redis, why, "Redis cannot be reached; going on without until it can");
    }
    Ok(crowd)
}

/// The NATS that the operator named, which may be away now and come later.
async fn nats(config: &crate::config::Nats) -> Result<Option<Arc<Nats>>, Failure> {
    let Some(address) = config.address() else { return Ok(None) };
    let nats = Nats::start(config, address).await.map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(Some(Arc::new(nats)))
}

/// An engine on a store, and the front door to it.
pub(super) fn assemble(
    store: Arc<dyn Store>,
    tokens: Tokens,
    policy: Policy,
    crowd: Crowd,
    publish: Arc<dyn Publish>,
) -> App {
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(SystemIds));
    let ports = Ports {
        store,
        lock: crowd.lock,
        lease: crowd.lease,
        limiter: crowd.limiter,
        clock: clock.clone(),
        ids: ids.clone(),
        publish,
    };
    let stop = CancellationToken::new();
    App {
        engine: Engine::start(ports, policy),
        tokens: Arc::new(tokens),
        clock,
        ids,
        stop,
        streams: Arc::default(),
        telemetry: Arc::new(Telemetry::new(crowd.shared.is_some())),
        redis: crowd.shared,
        nats: None,
        trusted_proxies: Arc::default(),
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub(super) struct ListenError {
    address: SocketAddr,
    pub(super) source: std::io::Error,
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        Self::Failed(error.to_string())
    }
}

pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

/// Serves until a signal to stop, lets what is under way finish, and ends. A second signal ends at once.
pub(super) async fn serve(
    listener: TcpListener,
    metrics: Option<TcpListener>,
    app: App,
    patience: Duration,
) -> Result<ExitCode, Failure> {
    let stop = app.stop.clone();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (engine, redis, nats) = (app.engine.clone(), app.redis.clone(), app.nats.clone());
    let watched = redis.clone();
    let over_nats = nats.clone().map(|nats| crate::nats::serve(app.clone(), nats));
    let (spared, ending) = (app.trusted_proxies.clone(), (stop.clone(), patience));
    let main = http::router(app.clone(), metrics.is_none());
    let serving = async {
        let main = http::listener::serve(listener, main, spared.clone(), ending.clone());
        let apart =
            metrics.map(|apart| http::listener::serve(apart, http::metrics_router(app), spared, ending));
        let ((), _, over_nats) = tokio::join!(main, OptionFuture::from(apart), OptionFuture::from(over_nats));
        if let Some(Err(error)) = over_nats {
            tracing::error!(%error, "requests over NATS were not taken");
        }
        engine.drain().await;
        if let Some(nats) = nats {
            nats.flush().await;
        }
        if let Some(shared) = redis {
            shared.redis.close().await;
        }
    };
    let watching = async {
        match &watched {
            Some(redis) => redis.watch().await,
            None => std::future::pending().await,
        }
    };
    let signals = async {
        tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
        tracing::info!("stopping");
        stop.cancel();
        tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
    };
    tokio::select! {
        () = serving => Ok(ExitCode::SUCCESS),
        () = watching => unreachable!("it watches as long as it is polled"),
        () = signals => Err(Failure::Failed("stopped by a second signal".to_owned())),
    }
}
