//! `boxoffice serve`: assembles and runs the server.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use api::{App, Dependency};
use domain::Clock;
use engine::relay::RelayDependencies;
use engine::{CommitListener, Engine, NoopListener, Policy, Ports, SystemClock, SystemIds};
use futures_util::future::OptionFuture;
use http_api::auth::Tokens;
use http_api::{Acceptor, HttpMetrics, HttpState, Streams};
use nats::{Nats, Settings};
use store::Store;
use supervisor::Supervisor;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Failure, database};
use crate::config::{DatabaseUrl, Serve};
use crate::coordination_ports::{CoordinationPorts, SharedRedis};
use crate::dependency::{DatabaseDependency, RedisDependency};
use crate::limit::{DRAIN_MARGIN, REDIS_WAIT_MAX};
use crate::{log, telemetry};

/// The components of a server: the state of the transports, and what must be closed at shutdown.
pub(super) struct Server {
    pub(super) http: HttpState,
    /// Unset if no Redis is configured.
    redis: Option<Arc<SharedRedis>>,
    /// Unset if NATS is not configured.
    nats: Option<Arc<Nats>>,
}

pub(super) async fn run(args: &Serve) -> Result<ExitCode, Failure> {
    log::init(args.log, args.log_format);
    let url = args.database.url();
    let store = database::open(&url, !args.no_migrate).await?;
    let coordination = coordination_ports(args, &url).await?;
    let nats = connect_nats(args.nats.settings()).await?;
    let (relay_store, lock) = (store.clone(), coordination.lock.clone());
    let mut server = assemble(store, args.identity.tokens(), args.policy(), coordination, nats);
    let listener = listen(args.listen).await?;
    let metrics = match args.metrics_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    server.http.trusted_proxies = args.trusted_proxies.clone().into();
    let app = &server.http.app;
    app.engine.start_chores(args.sweep_every);
    tracing::info!(address = %listener.local_addr()?, database = %url, "ready");
    let mut background = JoinSet::new();
    if let Some(nats) = &server.nats {
        let (clock, ids) = (server.http.clock.clone(), app.ids.clone());
        let dependencies =
            RelayDependencies { store: relay_store, lock, clock, ids, event_bus: nats.clone() };
        start_nats_tasks(&mut background, &app.supervisor, nats, dependencies);
    }
    if let Some(shared) = &server.redis {
        let (task, shared) = (app.supervisor.task("redis-monitor"), shared.clone());
        background.spawn(async move { task.run(&mut || shared.log_availability()).await });
    }
    // The background tasks end after the server, so that the relay also publishes the last commits.
    serve(listener, metrics, server, args.shutdown_timeout).await
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
async fn connect_nats(settings: Option<Settings>) -> Result<Option<Arc<Nats>>, Failure> {
    let Some(settings) = settings else { return Ok(None) };
    let nats = Nats::start(settings).await.map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(Some(Arc::new(nats)))
}

/// Starts an engine on a store, and returns the components of a server.
pub(super) fn assemble(
    store: Arc<dyn Store>,
    tokens: Tokens,
    policy: Policy,
    coordination: CoordinationPorts,
    nats: Option<Arc<Nats>>,
) -> Server {
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
    let engine = Engine::start(ports, policy);
    let redis = coordination.redis;
    let mut dependencies: Vec<Arc<dyn Dependency>> = vec![Arc::new(DatabaseDependency(engine.clone()))];
    if let Some(shared) = &redis {
        let (shared, engine) = (shared.clone(), engine.clone());
        dependencies.push(Arc::new(RedisDependency { shared, engine }));
    }
    if let Some(nats) = &nats {
        dependencies.push(nats.clone());
    }
    let app = App {
        engine,
        ids,
        stop: CancellationToken::new(),
        supervisor: Arc::default(),
        dependencies: dependencies.into(),
    };
    Server { http: http_state(app, tokens, clock), redis, nats }
}

/// Returns the state of the HTTP transport, which trusts no proxies.
fn http_state(app: App, tokens: Tokens, clock: Arc<dyn Clock>) -> HttpState {
    let streams = Arc::<Streams>::default();
    let metrics = Arc::new(HttpMetrics::new(streams.clone()));
    HttpState {
        registry: Arc::new(telemetry::registry(app.clone(), metrics.clone())),
        app,
        tokens: Arc::new(tokens),
        clock,
        streams,
        metrics,
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
    server: Server,
    shutdown_timeout: Duration,
) -> Result<ExitCode, Failure> {
    let stop = server.http.app.stop.clone();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (redis, nats) = (server.redis.clone(), server.nats.clone());
    let servers = run_servers(listener, metrics, server, shutdown_timeout);
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
    server: Server,
    shutdown_timeout: Duration,
) {
    let Server { http, nats, .. } = server;
    let App { engine, supervisor, stop, .. } = http.app.clone();
    let nats_server = nats.map(|nats| nats::serve(http.app.clone(), nats));
    let exempt_networks = http.trusted_proxies.clone();
    let api = http_api::router(http.clone(), metrics.is_none());
    let api = Acceptor::new(listener, api, exempt_networks.clone(), stop.clone());
    let metrics_server = metrics
        .map(|listener| Acceptor::new(listener, http_api::metrics_router(http), exempt_networks, stop));
    let metrics_server = metrics_server
        .map(|acceptor| http_api::serve(supervisor.task("metrics-listener"), acceptor, shutdown_timeout));
    let api_server = http_api::serve(supervisor.essential_task("listener"), api, shutdown_timeout);
    tokio::join!(api_server, OptionFuture::from(metrics_server), OptionFuture::from(nats_server));
    engine.drain().await;
}
