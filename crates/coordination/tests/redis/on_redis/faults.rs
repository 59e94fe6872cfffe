//! Faults of the server under load from three instances. Each test shows that its fault took effect, and that
//! all instances are served again soon after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use coordination::conformance::ManualClock;
use coordination::redis::{Counts, OnDown, Redis, RedisOptions};
use coordination::{Limiter as _, LockError, LockOptions, Rule};
use testkit::{DEADLINE, RedisFault, RedisProxy, RedisServer, eventually, within_deadline};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::harness::{LEASE, key, options, options_without_lease_expiry, residue, start};

/// Time for which a caller keeps its guard.
const WORK: Duration = Duration::from_millis(5);
/// Duration of a fault that lasts.
const FAULT: Duration = Duration::from_millis(1_500);
/// Allowance for a busy machine. Recovery itself is guaranteed within a lease.
const RECOVERY: Duration = Duration::from_secs(10);

/// Observations of the callers of all instances.
#[derive(Default)]
struct Observations {
    /// Callers that have acquired the key and not dropped their guard, even if it was lost.
    inside: AtomicU64,
    /// Acquisitions of the key while another caller was inside.
    overlaps: AtomicU64,
    unavailable: AtomicU64,
    lost: AtomicU64,
    /// The highest token of a guard that was dropped.
    last_token: AtomicU64,
    token_decreased: AtomicBool,
    served: [AtomicU64; 3],
}

/// Three instances whose callers contend for one key.
struct Load {
    instances: Vec<Redis>,
    observed: Arc<Observations>,
    callers: JoinSet<()>,
}

impl Load {
    /// Starts three instances with this reply timeout.
    async fn start(url: &str, reply_timeout: Duration, work: Duration) -> Self {
        Self::start_with(work, |number| {
            let mut options = options(url, &format!("i{number}"));
            options.reply_timeout = reply_timeout;
            options
        })
        .await
    }

    /// Starts three instances whose leases do not expire during a test, so that a key never has two owners.
    async fn start_without_lease_expiry(url: &str) -> Self {
        Self::start_with(WORK, |number| options_without_lease_expiry(url, &format!("i{number}"))).await
    }

    async fn start_with(work: Duration, options: impl Fn(usize) -> RedisOptions) -> Self {
        let mut instances = Vec::new();
        let mut callers = JoinSet::new();
        let observed = Arc::new(Observations::default());
        for number in 0..3 {
            instances.push(start(options(number)).await);
            for _ in 0..3 {
                callers.spawn(contend(instances[number].lock(), number, work, observed.clone()));
            }
        }
        let load = Self { instances, observed, callers };
        load.wait_for_recovery().await;
        load
    }

    fn served(&self) -> u64 {
        self.observed.served.iter().map(|served| served.load(Ordering::SeqCst)).sum()
    }

    fn observed(&self, counter: impl Fn(&Observations) -> &AtomicU64) -> u64 {
        counter(&self.observed).load(Ordering::SeqCst)
    }

    fn counted(&self, counter: impl Fn(Counts) -> u64) -> u64 {
        self.instances.iter().map(|instance| counter(instance.counts())).sum()
    }

    /// Waits until every instance has been served twice more.
    async fn wait_for_recovery(&self) {
        let began = Instant::now();
        let before = self.observed.served.each_ref().map(|served| served.load(Ordering::SeqCst));
        eventually("every instance is served", async || {
            let now = self.observed.served.each_ref().map(|served| served.load(Ordering::SeqCst));
            now.iter().zip(before).all(|(now, before)| *now > before + 1).then_some(())
        })
        .await;
        assert!(began.elapsed() < LEASE + RECOVERY, "after {:?}", began.elapsed());
    }

    /// Stops all callers. There must be no residue, and no token may have decreased.
    async fn finish(mut self, url: &str) {
        self.callers.shutdown().await;
        for instance in self.instances {
            instance.close().await;
        }
        assert_eq!(residue(url).await, 0);
        assert!(!self.observed.token_decreased.load(Ordering::SeqCst), "a later guard had a lower token");
    }
}

/// Acquires and releases the key in a loop, until the task is aborted.
async fn contend(
    lock: Arc<dyn coordination::Lock>,
    number: usize,
    work: Duration,
    observed: Arc<Observations>,
) {
    let options = LockOptions { wait: Duration::from_secs(5), ..LockOptions::default() };
    let key = key(1);
    loop {
        let before = observed.last_token.load(Ordering::SeqCst);
        let guard = match lock.acquire(&key, options).await {
            Ok(guard) => guard,
            Err(error) => {
                let is_unavailable = matches!(error, LockError::Unavailable(_));
                observed.unavailable.fetch_add(is_unavailable.into(), Ordering::SeqCst);
                sleep(WORK).await;
                continue;
            }
        };
        let is_overlap = observed.inside.fetch_add(1, Ordering::SeqCst) > 0;
        observed.overlaps.fetch_add(is_overlap.into(), Ordering::SeqCst);
        // The guard with that token was dropped before this request was sent.
        if guard.token() <= before {
            observed.token_decreased.store(true, Ordering::SeqCst);
        }
        sleep(work).await;
        observed.lost.fetch_add(guard.is_lost().into(), Ordering::SeqCst);
        observed.inside.fetch_sub(1, Ordering::SeqCst);
        observed.last_token.fetch_max(guard.token(), Ordering::SeqCst);
        drop(guard);
        observed.served[number].fetch_add(1, Ordering::SeqCst);
    }
}

/// The reply timeout of production.
const SHORT: Duration = Duration::from_millis(100);
/// A reply timeout that expires only because of a fault.
const LONG: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_opens_the_breaker() {
    let server = RedisServer::start().await;
    let url = server.url(0);
    let load = Load::start(&url, SHORT, WORK).await;
    server.pause();
    eventually("every breaker opens", async || {
        load.instances.iter().all(|instance| !instance.is_up()).then_some(())
    })
    .await;
    // With the breaker open nothing is sent, and the local window decides at once.
    let rule = Rule::parse("test", "5/10s").expect("a rule");
    let clock = Arc::new(ManualClock::new());
    let limiter = load.instances[0].limiter_with_fallback(OnDown::Local, clock);
    let before = load.instances[0].counts().round_trips;
    let mut allowed = 0;
    for _ in 0..100 {
        allowed += usize::from(limiter.attempt(rule, &key(7)).await.expect("the local window").allowed);
    }
    assert_eq!((allowed, limiter.fallback_count()), (5, 100));
    assert_eq!(load.instances[0].counts().round_trips, before);
    sleep(FAULT).await;
    assert!(
        load.observed(|observed| &observed.unavailable) > 0
            && load.counted(|counts| counts.breaker_openings) >= 3
    );
    server.resume();
    load.wait_for_recovery().await;
    load.finish(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_detected_while_idle() {
    let mut server = RedisServer::start().await;
    let redis = start(options(&server.url(0), "one")).await;
    server.kill9();
    eventually("the breaker opens", async || (!redis.is_up()).then_some(())).await;
    server.restart().await;
    within_deadline("Redis is up again", redis.wait_until_up()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_pause_is_handled_like_a_paused_server() {
    let server = RedisServer::start().await;
    let url = server.url(0);
    let load = Load::start(&url, SHORT, WORK).await;
    server.command(&["CLIENT", "PAUSE", "1500", "ALL"]).await;
    eventually("a breaker opens", async || {
        (load.counted(|counts| counts.breaker_openings) > 0).then_some(())
    })
    .await;
    load.wait_for_recovery().await;
    load.finish(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restarted_empty_may_grant_a_key_twice_and_recovers() {
    let mut server = RedisServer::start().await;
    let url = server.url(0);
    let load = Load::start(&url, LONG, WORK * 20).await;
    let mut kills = 0;
    let began = Instant::now();
    while kills < 4 || load.observed(|observed| &observed.overlaps) == 0 {
        assert!(began.elapsed() < DEADLINE, "the fault had no effect");
        server.kill9();
        server.restart().await;
        load.wait_for_recovery().await;
        kills += 1;
    }
    assert!(load.counted(|counts| counts.connections) >= 15);
    load.finish(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeatedly_flushed_server_may_grant_a_key_twice_and_recovers() {
    let server = RedisServer::start().await;
    let url = server.url(0);
    let load = Load::start(&url, LONG, WORK * 10).await;
    let began = Instant::now();
    while began.elapsed() < FAULT || load.observed(|observed| &observed.overlaps) == 0 {
        assert!(began.elapsed() < DEADLINE, "the fault had no effect");
        server.command(&["FLUSHALL"]).await;
        sleep(Duration::from_millis(100)).await;
    }
    load.wait_for_recovery().await;
    // Waiters have joined the queue again, or owners were notified of the loss.
    assert!(load.counted(|counts| counts.requeued) > 0 || load.counted(|counts| counts.leases_lost) > 0);
    load.finish(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_scripts_are_sent_again() {
    let server = RedisServer::start().await;
    let url = server.url(0);
    let load = Load::start_without_lease_expiry(&url).await;
    let rule = Rule::parse("test", "512/1h").expect("a rule");
    let before = load.served();
    for _ in 0..50 {
        server.command(&["SCRIPT", "FLUSH"]).await;
        assert!(load.instances[0].limiter().attempt(rule, &key(7)).await.expect("a reply").allowed);
        sleep(WORK).await;
    }
    load.wait_for_recovery().await;
    assert!(load.served() > before);
    assert_eq!(
        (load.observed(|observed| &observed.unavailable), load.observed(|observed| &observed.overlaps)),
        (0, 0)
    );
    server.command(&["FLUSHALL"]).await;
    load.finish(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_replica_that_is_promoted_grants_the_key_again() {
    let mut primary = RedisServer::start().await;
    let to_primary = RedisProxy::start(primary.port()).await;
    let replica = RedisServer::replica_of(to_primary.port()).await;
    let proxy = RedisProxy::start(primary.port()).await;
    let url = proxy.url(0);
    let (one, two) = (
        start(options_without_lease_expiry(&url, "one")).await,
        start(options_without_lease_expiry(&url, "two")).await,
    );
    // From here on the replica receives nothing.
    to_primary.set(RedisFault::Stall);
    let (first, second) = (one.lock(), two.lock());
    let guard = first.acquire(&key(1), LockOptions::default()).await.expect("free");
    primary.kill9();
    to_primary.set(RedisFault::Disconnect);
    replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    proxy.retarget(replica.port());
    // The fault takes effect: the new primary does not know the owner.
    let next =
        eventually("the key is granted", async || second.acquire(&key(1), LockOptions::default()).await.ok());
    let next = next.await;
    assert!(next.token() > guard.token());
    within_deadline("the first owner loses the key", guard.lost()).await;
    // Its release does not affect the second owner.
    drop(guard);
    assert!(first.try_acquire(&key(1), LockOptions::default()).await.expect("a reply").is_none());
    assert!(!next.is_lost());
    drop(next);
    assert_eq!(residue(&url).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_demoted_primary_reconnect_to_the_new_one() {
    let old = RedisServer::start().await;
    let new = RedisServer::replica_of(old.port()).await;
    let proxy = RedisProxy::start(old.port()).await;
    let url = proxy.url(0);
    let load = Load::start(&url, LONG, WORK).await;
    new.command(&["REPLICAOF", "NO", "ONE"]).await;
    old.command(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]).await;
    proxy.retarget(new.port());
    // The old primary keeps its connections but rejects writes.
    load.wait_for_recovery().await;
    assert!(load.counted(|counts| counts.breaker_openings) >= 3);
    load.finish(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_lost_after_execution_changes_nothing() {
    let server = RedisServer::start().await;
    let proxy = RedisProxy::start(server.port()).await;
    let url = proxy.url(0);
    let load = Load::start_without_lease_expiry(&url).await;
    for _ in 0..15 {
        let faults = proxy.fault_count();
        proxy.set(RedisFault::DisconnectOnReply);
        eventually("a reply is lost", async || (proxy.fault_count() > faults).then_some(())).await;
        proxy.set(RedisFault::Healthy);
        load.wait_for_recovery().await;
    }
    assert_eq!(
        load.observed(|observed| &observed.overlaps),
        0,
        "no lease has expired, so there is one owner at a time"
    );
    load.finish(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_time_out_when_redis_never_replies() {
    let server = RedisServer::start().await;
    let proxy = RedisProxy::start(server.port()).await;
    let url = proxy.url(0);
    let load = Load::start(&url, SHORT, WORK).await;
    for fault in [RedisFault::DropReplies, RedisFault::Stall, RedisFault::Disconnect] {
        let before = load.counted(|counts| counts.breaker_openings);
        let faults = proxy.fault_count();
        proxy.set(fault);
        eventually("every breaker opens", async || {
            load.instances.iter().all(|instance| !instance.is_up()).then_some(())
        })
        .await;
        sleep(FAULT / 3).await;
        proxy.set(RedisFault::Healthy);
        load.wait_for_recovery().await;
        assert!(load.counted(|counts| counts.breaker_openings) > before);
        assert!(fault == RedisFault::Stall || proxy.fault_count() > faults);
    }
    assert!(load.observed(|observed| &observed.unavailable) > 0);
    load.finish(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_find_grants_by_polling_when_messages_are_lost() {
    let server = RedisServer::start().await;
    let proxy = RedisProxy::start(server.port()).await;
    let url = proxy.url(0);
    let load = Load::start(&url, LONG, WORK).await;
    let found = load.counted(|counts| counts.grants_polled);
    proxy.set(RedisFault::DropMessages);
    eventually("grants are found by polls", async || {
        (load.counted(|counts| counts.grants_polled) > found + 2).then_some(())
    })
    .await;
    // Heartbeats that do not arrive make instances subscribe again.
    let accepted = proxy.accepted();
    let subscribed = load.counted(|counts| counts.subscriptions);
    eventually("a subscription is replaced", async || (proxy.accepted() > accepted).then_some(())).await;
    proxy.set(RedisFault::Healthy);
    eventually("it is subscribed again", async || {
        (load.counted(|counts| counts.subscriptions) > subscribed).then_some(())
    })
    .await;
    proxy.set(RedisFault::DisconnectSubscribers);
    sleep(FAULT / 3).await;
    proxy.set(RedisFault::Healthy);
    load.wait_for_recovery().await;
    assert!(proxy.fault_count() > 0);
    assert_eq!(load.observed(|observed| &observed.unavailable), 0, "requests were never affected");
    load.finish(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_out_of_memory_grants_no_keys_until_memory_is_free() {
    let server = RedisServer::start().await;
    let url = server.url(0);
    let load = Load::start(&url, LONG, WORK).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    eventually("no caller is served", async || {
        (load.observed(|observed| &observed.unavailable) > 30).then_some(())
    })
    .await;
    let rule = Rule::parse("test", "5/10s").expect("a rule");
    assert!(load.instances[0].limiter().attempt(rule, &key(7)).await.is_err());
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    load.wait_for_recovery().await;
    load.finish(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inspect_reports_server_role_and_memory_policy() {
    let server = RedisServer::start_with(&["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"]).await;
    let redis = start(options(&server.url(0), "one")).await;
    let observed = redis.inspect().await.expect("a reply");
    assert_eq!((observed.role.as_str(), observed.maxmemory_policy.as_str()), ("master", "allkeys-lru"));
    assert_eq!(observed.maxmemory_bytes, 64 * 1_024 * 1_024);
    assert!(observed.version.split('.').count() == 3 && !observed.latency.is_zero(), "{observed:?}");
}
