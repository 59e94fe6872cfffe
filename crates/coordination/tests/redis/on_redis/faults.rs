//! A server that fails in every way it can, under callers of three instances. Each test shows that its fault
//! has hit, and that all is well again soon after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use coordination::conformance::ManualClock;
use coordination::redis::{Counts, OnDown, Redis, RedisOptions};
use coordination::{Limiter as _, LockError, LockOptions, Rule};
use testkit::{DEADLINE, RedisFault, RedisProxy, RedisServer, eventually, within_deadline};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::harness::{LEASE, calm, key, options, residue, started};

/// How long a section takes.
const WORK: Duration = Duration::from_millis(5);
/// How long a fault lasts that lasts.
const FAULT: Duration = Duration::from_millis(1_500);
/// Recovery is promised within a lease; the rest is for a busy machine.
const RECOVERY: Duration = Duration::from_secs(10);

/// What callers saw, all instances together.
#[derive(Default)]
struct Seen {
    inside: AtomicU64,
    /// Times somebody came in while another was inside.
    two_inside: AtomicU64,
    unavailable: AtomicU64,
    lost: AtomicU64,
    /// The highest token of a tenure that is over.
    last_token: AtomicU64,
    token_went_back: AtomicBool,
    served: [AtomicU64; 3],
}

/// Three instances whose callers all want one key, again and again.
struct Crowd {
    instances: Vec<Redis>,
    seen: Arc<Seen>,
    callers: JoinSet<()>,
}

impl Crowd {
    /// Starts three instances on a server; answers may take `patience`.
    async fn start(url: &str, patience: Duration, work: Duration) -> Self {
        Self::start_with(work, |number| {
            let mut options = options(url, &format!("i{number}"));
            options.reply_timeout = patience;
            options
        })
        .await
    }

    /// Starts three instances whose leases do not run out, so that there are never two owners of a key.
    async fn start_calm(url: &str) -> Self {
        Self::start_with(WORK, |number| calm(url, &format!("i{number}"))).await
    }

    async fn start_with(work: Duration, options: impl Fn(usize) -> RedisOptions) -> Self {
        let (mut instances, mut callers, seen) = (Vec::new(), JoinSet::new(), Arc::new(Seen::default()));
        for number in 0..3 {
            instances.push(started(options(number)).await);
            for _ in 0..3 {
                callers.spawn(come_again(instances[number].lock(), number, work, seen.clone()));
            }
        }
        let crowd = Self { instances, seen, callers };
        crowd.recovers().await;
        crowd
    }

    fn served(&self) -> u64 {
        self.seen.served.iter().map(|served| served.load(Ordering::SeqCst)).sum()
    }

    fn saw(&self, what: impl Fn(&Seen) -> &AtomicU64) -> u64 {
        what(&self.seen).load(Ordering::SeqCst)
    }

    fn counted(&self, what: impl Fn(Counts) -> u64) -> u64 {
        self.instances.iter().map(|instance| what(instance.counts())).sum()
    }

    /// Waits until every instance has been served again.
    async fn recovers(&self) {
        let (began, before) =
            (Instant::now(), self.seen.served.each_ref().map(|served| served.load(Ordering::SeqCst)));
        eventually("every instance is served", async || {
            let now = self.seen.served.each_ref().map(|served| served.load(Ordering::SeqCst));
            now.iter().zip(before).all(|(now, before)| *now > before + 1).then_some(())
        })
        .await;
        assert!(began.elapsed() < LEASE + RECOVERY, "after {:?}", began.elapsed());
    }

    /// Sends everybody home; nothing must stay behind, and no token have gone back.
    async fn ends(mut self, url: &str) {
        self.callers.shutdown().await;
        for instance in self.instances {
            instance.close().await;
        }
        assert_eq!(residue(url).await, 0);
        assert!(!self.seen.token_went_back.load(Ordering::SeqCst), "a later tenure had a lower token");
    }
}

/// One caller, for ever.
async fn come_again(lock: Arc<dyn coordination::Lock>, number: usize, work: Duration, seen: Arc<Seen>) {
    let options = LockOptions { wait: Duration::from_secs(5), ..LockOptions::default() };
    let key = key(1);
    loop {
        let before = seen.last_token.load(Ordering::SeqCst);
        let tenure = match lock.acquire(&key, options).await {
            Ok(tenure) => tenure,
            Err(error) => {
                let is_unavailable = matches!(error, LockError::Unavailable(_));
                seen.unavailable.fetch_add(is_unavailable.into(), Ordering::SeqCst);
                sleep(WORK).await;
                continue;
            }
        };
        let two = seen.inside.fetch_add(1, Ordering::SeqCst) > 0;
        seen.two_inside.fetch_add(two.into(), Ordering::SeqCst);
        // The one before was over when this one was asked for.
        if tenure.token() <= before {
            seen.token_went_back.store(true, Ordering::SeqCst);
        }
        sleep(work).await;
        seen.lost.fetch_add(tenure.is_lost().into(), Ordering::SeqCst);
        seen.inside.fetch_sub(1, Ordering::SeqCst);
        seen.last_token.fetch_max(tenure.token(), Ordering::SeqCst);
        drop(tenure);
        seen.served[number].fetch_add(1, Ordering::SeqCst);
    }
}

/// Longest wait for an answer, as in production.
const SHORT: Duration = Duration::from_millis(100);
/// One that only a fault lets run out.
const LONG: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_opens_the_breaker() {
    let server = RedisServer::start().await;
    let url = server.url(0);
    let crowd = Crowd::start(&url, SHORT, WORK).await;
    server.pause();
    eventually("every breaker opens", async || {
        crowd.instances.iter().all(|instance| !instance.is_up()).then_some(())
    })
    .await;
    // From here on nobody waits for it: a window of our own decides, and nothing is sent.
    let (rule, clock) = (Rule::parse("test", "5/10s").expect("a rule"), Arc::new(ManualClock::new()));
    let limiter = crowd.instances[0].limiter_with_fallback(OnDown::Local, clock);
    let before = crowd.instances[0].counts().round_trips;
    let mut allowed = 0;
    for _ in 0..100 {
        allowed += usize::from(limiter.attempt(rule, &key(7)).await.expect("an own window").allowed);
    }
    assert_eq!((allowed, limiter.fallback_count()), (5, 100));
    assert_eq!(crowd.instances[0].counts().round_trips, before);
    sleep(FAULT).await;
    assert!(crowd.saw(|seen| &seen.unavailable) > 0 && crowd.counted(|counts| counts.breaker_openings) >= 3);
    server.resume();
    crowd.recovers().await;
    crowd.ends(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_detected_while_idle() {
    let mut server = RedisServer::start().await;
    let redis = started(options(&server.url(0), "one")).await;
    server.kill9();
    eventually("the breaker opens", async || (!redis.is_up()).then_some(())).await;
    server.restart().await;
    within_deadline("it is back", redis.wait_until_up()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_pause_is_handled_like_a_paused_server() {
    let server = RedisServer::start().await;
    let url = server.url(0);
    let crowd = Crowd::start(&url, SHORT, WORK).await;
    server.command(&["CLIENT", "PAUSE", "1500", "ALL"]).await;
    eventually("a breaker opens", async || {
        (crowd.counted(|counts| counts.breaker_openings) > 0).then_some(())
    })
    .await;
    crowd.recovers().await;
    crowd.ends(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_restarted_empty_may_grant_a_key_twice_and_recovers() {
    let mut server = RedisServer::start().await;
    let url = server.url(0);
    let crowd = Crowd::start(&url, LONG, WORK * 20).await;
    let (mut kills, began) = (0, Instant::now());
    while kills < 4 || crowd.saw(|seen| &seen.two_inside) == 0 {
        assert!(began.elapsed() < DEADLINE, "the fault hits nobody");
        server.kill9();
        server.restart().await;
        crowd.recovers().await;
        kills += 1;
    }
    assert!(crowd.counted(|counts| counts.connections) >= 15);
    crowd.ends(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_flushed_repeatedly_may_grant_a_key_twice_and_recovers() {
    let server = RedisServer::start().await;
    let url = server.url(0);
    let crowd = Crowd::start(&url, LONG, WORK * 10).await;
    let began = Instant::now();
    while began.elapsed() < FAULT || crowd.saw(|seen| &seen.two_inside) == 0 {
        assert!(began.elapsed() < DEADLINE, "the fault hits nobody");
        server.command(&["FLUSHALL"]).await;
        sleep(Duration::from_millis(100)).await;
    }
    crowd.recovers().await;
    // Whoever was in the queue is there again, and owners have heard of their loss.
    assert!(crowd.counted(|counts| counts.requeued) > 0 || crowd.counted(|counts| counts.leases_lost) > 0);
    crowd.ends(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_scripts_are_sent_again() {
    let server = RedisServer::start().await;
    let url = server.url(0);
    let crowd = Crowd::start_calm(&url).await;
    let (rule, before) = (Rule::parse("test", "512/1h").expect("a rule"), crowd.served());
    for _ in 0..50 {
        server.command(&["SCRIPT", "FLUSH"]).await;
        assert!(crowd.instances[0].limiter().attempt(rule, &key(7)).await.expect("an answer").allowed);
        sleep(WORK).await;
    }
    crowd.recovers().await;
    assert!(crowd.served() > before);
    assert_eq!((crowd.saw(|seen| &seen.unavailable), crowd.saw(|seen| &seen.two_inside)), (0, 0));
    server.command(&["FLUSHALL"]).await;
    crowd.ends(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_replica_that_is_promoted_grants_the_key_again() {
    let mut primary = RedisServer::start().await;
    let to_primary = RedisProxy::start(primary.port()).await;
    let replica = RedisServer::replica_of(to_primary.port()).await;
    let way = RedisProxy::start(primary.port()).await;
    let url = way.url(0);
    let (one, two) = (started(calm(&url, "one")).await, started(calm(&url, "two")).await);
    // From here on the replica hears nothing.
    to_primary.set(RedisFault::Stall);
    let (first, second) = (one.lock(), two.lock());
    let tenure = first.acquire(&key(1), LockOptions::default()).await.expect("free");
    primary.kill9();
    to_primary.set(RedisFault::Disconnect);
    replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    way.retarget(replica.port());
    // The fault hits: the new primary has never heard of the owner.
    let next =
        eventually("the key is given", async || second.acquire(&key(1), LockOptions::default()).await.ok());
    let next = next.await;
    assert!(next.token() > tenure.token());
    within_deadline("the first owner hears of it", tenure.lost()).await;
    // Its release takes nothing from the second.
    drop(tenure);
    assert!(first.try_acquire(&key(1), LockOptions::default()).await.expect("an answer").is_none());
    assert!(!next.is_lost());
    drop(next);
    assert_eq!(residue(&url).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_leave_a_demoted_primary_for_the_new_one() {
    let old = RedisServer::start().await;
    let new = RedisServer::replica_of(old.port()).await;
    let way = RedisProxy::start(old.port()).await;
    let url = way.url(0);
    let crowd = Crowd::start(&url, LONG, WORK).await;
    new.command(&["REPLICAOF", "NO", "ONE"]).await;
    old.command(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]).await;
    way.retarget(new.port());
    // Its connections are whole; it only takes no writes.
    crowd.recovers().await;
    assert!(crowd.counted(|counts| counts.breaker_openings) >= 3);
    crowd.ends(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_lost_after_execution_changes_nothing() {
    let server = RedisServer::start().await;
    let way = RedisProxy::start(server.port()).await;
    let url = way.url(0);
    let crowd = Crowd::start_calm(&url).await;
    for _ in 0..15 {
        let hit = way.fault_count();
        way.set(RedisFault::DisconnectOnReply);
        eventually("an answer is lost", async || (way.fault_count() > hit).then_some(())).await;
        way.set(RedisFault::Healthy);
        crowd.recovers().await;
    }
    assert_eq!(crowd.saw(|seen| &seen.two_inside), 0, "no lease has run out, so nobody is two");
    crowd.ends(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_time_out_when_redis_never_replies() {
    let server = RedisServer::start().await;
    let way = RedisProxy::start(server.port()).await;
    let url = way.url(0);
    let crowd = Crowd::start(&url, SHORT, WORK).await;
    for wire in [RedisFault::DropReplies, RedisFault::Stall, RedisFault::Disconnect] {
        let (before, hit) = (crowd.counted(|counts| counts.breaker_openings), way.fault_count());
        way.set(wire);
        eventually("every breaker opens", async || {
            crowd.instances.iter().all(|instance| !instance.is_up()).then_some(())
        })
        .await;
        sleep(FAULT / 3).await;
        way.set(RedisFault::Healthy);
        crowd.recovers().await;
        assert!(crowd.counted(|counts| counts.breaker_openings) > before);
        assert!(wire == RedisFault::Stall || way.fault_count() > hit);
    }
    assert!(crowd.saw(|seen| &seen.unavailable) > 0);
    crowd.ends(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_find_grants_by_polling_when_messages_are_lost() {
    let server = RedisServer::start().await;
    let way = RedisProxy::start(server.port()).await;
    let url = way.url(0);
    let crowd = Crowd::start(&url, LONG, WORK).await;
    let found = crowd.counted(|counts| counts.grants_polled);
    way.set(RedisFault::DropMessages);
    eventually("grants are found", async || {
        (crowd.counted(|counts| counts.grants_polled) > found + 2).then_some(())
    })
    .await;
    // Rings of their own that are not heard make them try to listen anew.
    let (accepted, subscribed) = (way.accepted(), crowd.counted(|counts| counts.subscriptions));
    eventually("a listener gives up", async || (way.accepted() > accepted).then_some(())).await;
    way.set(RedisFault::Healthy);
    eventually("it listens anew", async || {
        (crowd.counted(|counts| counts.subscriptions) > subscribed).then_some(())
    })
    .await;
    way.set(RedisFault::DisconnectSubscribers);
    sleep(FAULT / 3).await;
    way.set(RedisFault::Healthy);
    crowd.recovers().await;
    assert!(way.fault_count() > 0);
    assert_eq!(crowd.saw(|seen| &seen.unavailable), 0, "questions went through all the time");
    crowd.ends(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_out_of_memory_grants_no_keys_until_memory_is_free() {
    let server = RedisServer::start().await;
    let url = server.url(0);
    let crowd = Crowd::start(&url, LONG, WORK).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    eventually("nobody is served", async || (crowd.saw(|seen| &seen.unavailable) > 30).then_some(())).await;
    let rule = Rule::parse("test", "5/10s").expect("a rule");
    assert!(crowd.instances[0].limiter().attempt(rule, &key(7)).await.is_err());
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    crowd.recovers().await;
    crowd.ends(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inspect_reports_server_role_and_memory_policy() {
    let server = RedisServer::start_with(&["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"]).await;
    let redis = started(options(&server.url(0), "one")).await;
    let seen = redis.inspect().await.expect("an answer");
    assert_eq!((seen.role.as_str(), seen.maxmemory_policy.as_str()), ("master", "allkeys-lru"));
    assert_eq!(seen.maxmemory_bytes, 64 * 1_024 * 1_024);
    assert!(seen.version.split('.').count() == 3 && !seen.latency.is_zero(), "{seen:?}");
}
