//! `boxoffice serve`: assembles and runs the server.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use engine::relay::RelayDependencies;
use engine::{CommitListener, Engine, NoopListener, Policy, Ports, SystemClock, SystemIds};
use futures_util::future::OptionFuture;
use store::Store;
use supervisor::Supervisor;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Failure, database};
use crate::auth::Tokens;
use crate::config::{DatabaseUrl, Serve};
use crate::coordination_ports::CoordinationPorts;
use crate::http::listener::{self, Acceptor};
use crate::http::{self, App};
use crate::log;
use crate::nats::Nats;
use crate::telemetry::Telemetry;

/// Longest wait for Redis at startup before the server continues without it.
const REDIS_WAIT_MAX: Duration = Duration::from_secs(1);
/// Additional time on shutdown, after the timeout for requests, for the changes that they have started.
const DRAIN_MARGIN: Duration = Duration::from_secs(1);

pub(super) async fn run(args: &Serve) -> Result<ExitCode, Failure> {
    log::init(args.log, args.log_format);
    let url = args.database.url();
    let store = database::open(&url, !args.no_migrate).await?;
    let coordination = coordination_ports(args, &url).await?;
    let nats = connect_nats(&args.nats).await?;
    let (relay_store, lock) = (store.clone(), coordination.lock.clone());
    let app = assemble(store, args.identity.tokens(), args.policy(), coordination, nats);
    let listener = listen(args.listen).await?;
    let metrics = match args.metrics_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let app = App { trusted_proxies: args.trusted_proxies.clone().into(), ..app };
    app.engine.start_chores(args.sweep_every);
    tracing::info!(address = %listener.local_addr()?, database = %url, "ready");
    let mut background = JoinSet::new();
    if let Some(nats) = &app.nats {
        let (clock, ids) = (app.clock.clone(), app.ids.clone());
        let dependencies =
            RelayDependencies { store: relay_store, lock, clock, ids, event_bus: nats.clone() };
        start_nats_tasks(&mut background, &app.supervisor, nats, dependencies);
    }
    if let Some(shared) = &app.redis {
        let (task, shared) = (app.supervisor.task("redis-monitor"), shared.clone());
        background.spawn(async move { task.run(&mut || shared.log_availability()).await });
    }
    // The background tasks end after the server, so that the relay also publishes the last commits.
    serve(listener, metrics, app, args.shutdown_timeout).await
}

/// Starts the tasks that keep the connection to NATS and run the relay.
fn start_nats_tasks(
    background: &mut JoinSet<()>,
    supervisor: &Supervisor,
    nats: &Arc<Nats>,
    dependencies: RelayDependencies,
) {
    let (task, keeper) = (supervisor.task("nats-connection"), nats.clone());
    background.spawn(async move { task.run(&mut || keeper.keep_client()).await });
    let (task, relay) = (supervisor.task("relay"), nats.relay.clone());
    background.spawn(async move { task.run(&mut || relay.run(&dependencies)).await });
}

/// Returns the limiter and the locks. If Redis is unreachable now, it is used once it can be reached.
async fn coordination_ports(args: &Serve, database: &DatabaseUrl) -> Result<CoordinationPorts, Failure> {
    let multi_instance = matches!(database, DatabaseUrl::Postgres(_));
    let Some(options) = args.redis.options(&SystemIds).map_err(Failure::Failed)? else {
        if multi_instance {
            tracing::warn!("no --redis: with several instances, each counts rate limits on its own");
        }
        return Ok(CoordinationPorts::local());
    };
    let coordination = CoordinationPorts::on_redis(options, args.on_redis_down, multi_instance);
    if let Some(shared) = &coordination.redis
        && timeout(REDIS_WAIT_MAX, shared.redis.wait_until_up()).await.is_err()
    {
        let (redis, why) = (args.redis.public(), shared.redis.last_connect_error());
        tracing::warn!(redis, why, "Redis cannot be reached; continuing without it");
    }
    Ok(coordination)
}

/// Starts to connect to NATS if it is configured. If it is unreachable now, it is used once it can be
/// reached.
async fn connect_nats(config: &crate::config::Nats) -> Result<Option<Arc<Nats>>, Failure> {
    let Some(address) = config.address() else { return Ok(None) };
    let nats = Nats::start(config, address).await.map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(Some(Arc::new(nats)))
}

/// Starts an engine on a store, and returns the state that the transports share.
pub(super) fn assemble(
    store: Arc<dyn Store>,
    tokens: Tokens,
    policy: Policy,
    coordination: CoordinationPorts,
    nats: Option<Arc<Nats>>,
) -> App {
    let (clock, ids) = (Arc::new(SystemClock), Arc::new(SystemIds));
    let commit_listener: Arc<dyn CommitListener> = match &nats {
        Some(nats) => nats.relay.clone(),
        None => Arc::new(NoopListener),
    };
    let ports = Ports {
        store,
        lock: coordination.lock,
        lease: coordination.lease,
        limiter: coordination.limiter,
        clock: clock.clone(),
        ids: ids.clone(),
        commit_listener,
    };
    let stop = CancellationToken::new();
    App {
        engine: Engine::start(ports, policy),
        tokens: Arc::new(tokens),
        clock,
        ids,
        stop,
        streams: Arc::default(),
        supervisor: Arc::default(),
        telemetry: Arc::new(Telemetry::new(coordination.redis.is_some(), nats.is_some())),
        redis: coordination.redis,
        nats,
        trusted_proxies: Arc::default(),
    }
}

/// An error to listen on an address.
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

/// Serves until SIGINT or SIGTERM, then shuts down gracefully. A second signal terminates at once.
pub(super) async fn serve(
    listener: TcpListener,
    metrics: Option<TcpListener>,
    app: App,
    shutdown_timeout: Duration,
) -> Result<ExitCode, Failure> {
    let stop = app.stop.clone();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (redis, nats) = (app.redis.clone(), app.nats.clone());
    let servers = run_servers(listener, metrics, app, shutdown_timeout);
    let timed_out = async {
        stop.cancelled().await;
        sleep(shutdown_timeout + DRAIN_MARGIN).await;
    };
    let serving = async {
        tokio::select! {
            () = servers => (),
            () = timed_out => tracing::warn!("shutdown timed out while changes were in progress"),
        }
        if let Some(nats) = nats {
            nats.flush().await;
        }
        if let Some(shared) = redis {
            shared.redis.close().await;
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
        () = signals => Err(Failure::Failed("terminated by a second signal".to_owned())),
    }
}

/// Serves requests until shutdown, and completes those in progress.
async fn run_servers(
    listener: TcpListener,
    metrics: Option<TcpListener>,
    app: App,
    shutdown_timeout: Duration,
) {
    let (engine, supervisor) = (app.engine.clone(), app.supervisor.clone());
    let nats_server = app.nats.clone().map(|nats| crate::nats::serve(app.clone(), nats));
    let (exempt_networks, stop) = (app.trusted_proxies.clone(), app.stop.clone());
    let api = http::router(app.clone(), metrics.is_none());
    let api = Acceptor::new(listener, api, exempt_networks.clone(), stop.clone());
    let metrics_server =
        metrics.map(|listener| Acceptor::new(listener, http::metrics_router(app), exempt_networks, stop));
    let metrics_server = metrics_server
        .map(|acceptor| listener::serve(supervisor.task("metrics-listener"), acceptor, shutdown_timeout));
    let api_server = listener::serve(supervisor.essential_task("listener"), api, shutdown_timeout);
    tokio::join!(api_server, OptionFuture::from(metrics_server), OptionFuture::from(nats_server));
    engine.drain().await;
}
