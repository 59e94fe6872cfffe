//! `boxoffice serve`: where the parts are put together.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use engine::{Engine, Policy, Ports, Silent, SystemClock, SystemIds};
use store::Store;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Failure, database};
use crate::auth::Tokens;
use crate::config::{DatabaseUrl, LogFormat, Redis, Serve, wants_colours};
use crate::http::{self, App};
use crate::shared::Crowd;
use crate::telemetry::Telemetry;

/// How long a start waits for Redis before it goes on without.
pub(super) const REDIS_PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn run(args: &Serve) -> Result<ExitCode, Failure> {
    log(args.log, args.log_format);
    let url = args.database.url();
    let store = database::open(&url, !args.no_migrate).await?;
    let crowd = crowd(&args.redis, &url).await?;
    let app = assemble(store, args.identity.tokens(), args.policy(), crowd);
    let listener = listen(args.listen).await?;
    let metrics = match args.metrics_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let app = App { trusted_proxies: args.trusted_proxies.clone().into(), ..app };
    app.engine.start_chores(args.sweep_every);
    tracing::info!(address = %listener.local_addr()?, database = %url, "ready");
    serve(listener, metrics, app, args.shutdown_timeout).await
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
async fn crowd(redis: &Redis, database: &DatabaseUrl) -> Result<Crowd, Failure> {
    let many = matches!(database, DatabaseUrl::Postgres(_));
    let Some(address) = &redis.address else {
        if many {
            tracing::warn!("no --redis: beside other instances each counts rate limits for itself");
        }
        return Ok(Crowd::local());
    };
    let options = address.options(&SystemIds).map_err(|error| Failure::Failed(error.to_string()))?;
    let crowd = Crowd::shared(options, redis.on_redis_down, many);
    if let Some(shared) = &crowd.shared
        && timeout(REDIS_PATIENCE, shared.redis.up()).await.is_err()
    {
        tracing::warn!(redis = address.public(), "Redis cannot be reached; going on without until it can");
    }
    Ok(crowd)
}

/// An engine on a store, and the front door to it.
pub(super) fn assemble(store: Arc<dyn Store>, tokens: Tokens, policy: Policy, crowd: Crowd) -> App {
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(SystemIds));
    let ports = Ports {
        store,
        lock: crowd.lock,
        lease: crowd.lease,
        limiter: crowd.limiter,
        clock: clock.clone(),
        ids: ids.clone(),
        publish: Arc::new(Silent),
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
        trusted_proxies: Arc::default(),
    }
}

pub(super) async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::Failed(format!("cannot listen on {address}: {error}")))
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
    let (engine, redis, watched) = (app.engine.clone(), app.redis.clone(), app.redis.clone());
    let (spared, ending) = (app.trusted_proxies.clone(), (stop.clone(), patience));
    let main = http::router(app.clone(), metrics.is_none());
    let serving = async {
        let main = http::listener::serve(listener, main, spared.clone(), ending.clone());
        match metrics {
            Some(apart) => {
                let apart = http::listener::serve(apart, http::metrics_router(app), spared, ending);
                tokio::join!(main, apart);
            }
            None => main.await,
        }
        engine.drain().await;
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
