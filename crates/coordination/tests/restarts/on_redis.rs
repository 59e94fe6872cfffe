//! Tests on a real Redis server.

use std::sync::Arc;
use std::time::Duration;

use coordination::redis::{Redis, RedisOptions};
use coordination::{Key, LockError, LockOptions};
use testkit::{DEADLINE, RedisServer, eventually, within_deadline};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_panic_of_the_lock_task_leaves_no_caller_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("panics");
    supervisor::sabotage::set_panic_file(file.clone());
    let server = RedisServer::start().await;
    let mut options = RedisOptions::new(&server.url(0), "one").unwrap();
    (options.lease, options.reply_timeout) = (Duration::from_mins(1), Duration::from_secs(10));
    let redis = Redis::start(options);
    within_deadline("Redis is up", redis.wait_until_up()).await;
    let lock = redis.lock();
    let key = Key::new("test", "1").unwrap();
    let long_wait = LockOptions { wait: DEADLINE * 10, ..LockOptions::default() };
    let guard = lock.acquire(&key, long_wait).await.unwrap();
    let waiting = {
        let (lock, key) = (lock.clone(), key.clone());
        let mut set = tokio::task::JoinSet::new();
        set.spawn(async move { lock.acquire(&key, long_wait).await });
        set
    };
    eventually("a caller waits", async || guard.contended().then_some(())).await;

    // Five panics: the task is down for more than three seconds in total.
    std::fs::write(&file, "redis-locks 5\n").unwrap();
    within_deadline("the owner loses the key", guard.lost()).await;
    let refused = within_deadline("the waiter gets an error", waiting.join_all()).await;
    assert!(matches!(refused.as_slice(), [Err(LockError::Unavailable(_))]), "{refused:?}");
    let task = redis.tasks().into_iter().find(|task| task.name() == "redis-locks").unwrap();
    let mut results = 0;
    while task.restarts() < 5 || task.is_down() {
        let began = Instant::now();
        let result =
            within_deadline("a result", lock.acquire(&Key::new("test", "2").unwrap(), long_wait)).await;
        assert!(matches!(result, Ok(_) | Err(LockError::Unavailable(_))), "{result:?}");
        assert!(began.elapsed() < DEADLINE);
        results += 1;
    }
    assert!(results > 0);
    // The key was released on the server, where its lease is a minute.
    drop(guard);
    let guard = within_deadline("the key is free", lock.acquire(&key, long_wait)).await.unwrap();
    assert!(!guard.is_lost());
    drop(Arc::new(redis));
}
