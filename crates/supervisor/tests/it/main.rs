//! Restarts, their backoff, and the state that survives a panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use supervisor::{HEALTHY_AFTER, RESTART_PAUSE_MAX, RESTART_PAUSE_MIN, Supervisor, Work};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

#[tokio::test(start_paused = true)]
async fn a_panic_is_counted_and_followed_by_a_restart_after_a_growing_pause() {
    let task = Supervisor::default().task("flaky");
    let starts = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = starts.clone();
    let start = Instant::now();
    let mut work = move || {
        let seen = seen.clone();
        let at = start.elapsed();
        async move {
            let count = {
                let mut seen = seen.lock().unwrap();
                seen.push(at);
                seen.len()
            };
            sleep(Duration::ZERO).await;
            assert!(count > 10, "start {count}");
        }
    };
    task.run(&mut work).await;
    let starts = starts.lock().unwrap();
    let pauses: Vec<u128> =
        starts.windows(2).map(|two| two[1].saturating_sub(two[0]).as_millis() / 100).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 100, 100, 100]);
    assert_eq!((RESTART_PAUSE_MIN.as_millis(), RESTART_PAUSE_MAX.as_millis()), (100, 10_000));
    assert_eq!((task.restarts(), task.is_down()), (10, false));
}

#[tokio::test(start_paused = true)]
async fn a_healthy_run_makes_the_pause_short_again() {
    let task = Supervisor::default().task("rare");
    let runs = AtomicU64::new(0);
    let start = Instant::now();
    let mut work = || async {
        if runs.fetch_add(1, Ordering::Relaxed) < 5 {
            sleep(HEALTHY_AFTER).await;
            panic!("after a minute");
        }
    };
    task.run(&mut work).await;
    assert!(start.elapsed() < HEALTHY_AFTER * 5 + RESTART_PAUSE_MIN * 6, "{:?}", start.elapsed());
}

/// A queue that survives a panic, and whose callers get a reply while the task is down.
struct Queue {
    requests: mpsc::UnboundedReceiver<oneshot::Sender<&'static str>>,
    runs: u32,
}

impl Work for Queue {
    async fn run(&mut self) {
        self.runs += 1;
        while let Some(reply) = self.requests.recv().await {
            assert!(self.runs > 1, "with a pending caller");
            let _ = reply.send("done");
        }
    }

    async fn serve_while_down(&mut self) {
        while let Some(reply) = self.requests.recv().await {
            let _ = reply.send("refused");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn callers_are_answered_while_a_task_is_down_and_served_afterwards() {
    let supervisor = Arc::new(Supervisor::default());
    let task = supervisor.essential_task("queue");
    let (sender, requests) = mpsc::unbounded_channel();
    let running = {
        let task = task.clone();
        let mut queue = Queue { requests, runs: 0 };
        async move { task.run(&mut queue).await }
    };
    let calls = async move {
        let request = || {
            let (reply, result) = oneshot::channel();
            sender.send(reply).unwrap();
            result
        };
        let during = request();
        assert!(during.await.is_err(), "the caller of the panicked run gets an error immediately");
        assert!(task.is_down() && task.is_essential());
        assert_eq!(request().await, Ok("refused"));
        sleep(2 * RESTART_PAUSE_MIN).await;
        assert!(!task.is_down());
        assert_eq!(request().await, Ok("done"));
        drop(sender);
    };
    tokio::join!(running, calls);
    assert_eq!(supervisor.tasks().len(), 1);
    assert_eq!(supervisor.task("queue").restarts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_restart() {
    let task = Supervisor::default().task("stopped");
    let stop = CancellationToken::new();
    let mut work = || async { panic!("at every start") };
    let ended = async { timeout(Duration::from_hours(1), task.run_until(&stop, &mut work)).await.unwrap() };
    let stopping = async {
        sleep(Duration::from_secs(5)).await;
        stop.cancel();
        Instant::now()
    };
    let ((), at) = tokio::join!(ended, stopping);
    assert_eq!(at.elapsed(), Duration::ZERO);
}
