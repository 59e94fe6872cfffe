//! The checks of `boxoffice doctor` for Redis.

use coordination::redis::{Inspection, Redis, RedisOptions};
use serde_json::{Map, json};
use tokio::time::timeout;

use super::report::{DependencyReport, Problem};
use crate::limit::DOCTOR_REDIS_WAIT_MAX;

/// The oldest supported version of Redis, as major and minor.
const VERSION_MIN: (u32, u32) = (6, 2);

/// Checks a Redis server. Changes no data permanently.
pub(super) async fn redis(options: RedisOptions, address: String) -> DependencyReport {
    let redis = Redis::start(options);
    // The inspection below reports a failure.
    let _ = timeout(DOCTOR_REDIS_WAIT_MAX, redis.wait_until_up()).await;
    let mut dependency = DependencyReport {
        name: "redis",
        address,
        round_trip: None,
        facts: Vec::new(),
        details: Map::new(),
        problems: Vec::new(),
    };
    match redis.inspect().await {
        Ok(inspection) => describe(inspection, &mut dependency),
        Err(_) => dependency.problems.push(Problem::new(
            match redis.last_connect_error() {
                Some(why) => format!("Redis cannot be reached or does not accept writes: {why}"),
                None => "Redis cannot be reached or does not accept writes".to_owned(),
            },
            "check the address, the credentials, and that it is a running primary; until then each process \
             counts rate limits on its own or refuses requests, depending on --on-redis-down",
        )),
    }
    redis.close().await;
    dependency
}

fn describe(inspection: Inspection, dependency: &mut DependencyReport) {
    let Inspection { product, version, role, maxmemory_policy, maxmemory_bytes, latency } = inspection;
    dependency.round_trip = Some(latency);
    dependency.details = [
        ("version", json!(format!("{product} {version}"))),
        ("role", json!(role)),
        ("maxmemoryPolicy", json!(maxmemory_policy)),
        ("maxmemoryBytes", json!(maxmemory_bytes)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect();
    dependency.facts = vec![
        ("version", format!("{product} {version}")),
        ("role", role.clone()),
        ("eviction", maxmemory_policy.clone()),
    ];
    if is_too_old(&product, &version) {
        dependency.problems.push(Problem::new(
            format!("{product} {version} is older than Redis 6.2"),
            "use Redis 6.2 or later, or Valkey",
        ));
    }
    if maxmemory_policy != "noeviction" {
        dependency.problems.push(Problem::new(
            format!(
                "the eviction policy is \"{maxmemory_policy}\": Redis may evict rate limits and locks in use"
            ),
            "set `maxmemory-policy noeviction`, and use this Redis for boxoffice only",
        ));
    }
}

fn is_too_old(product: &str, version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => product == "redis" && (major, minor) < VERSION_MIN,
        _ => false,
    }
}
