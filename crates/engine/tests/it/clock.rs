//! Detection of clock jumps while the program runs.

use std::time::Duration;

use crate::fixture::{PausedClock, start_with};

#[tokio::test(start_paused = true)]
async fn r2_a_jump_of_the_clock_is_counted() {
    let clock = PausedClock::new();
    let (engine, _) = start_with(0, clock.clone());
    engine.start_chores(Duration::from_secs(30));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(engine.clock_jumps(), 0, "passing time is not a jump");
    for (step, seconds) in (1..).zip([61, -61, 40 * 86_400, -40 * 86_400]) {
        clock.shift(seconds);
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(engine.clock_jumps(), step, "after a step of {seconds} s");
    }
    clock.shift(30);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(engine.clock_jumps(), 4, "a small correction is not a jump");
}
