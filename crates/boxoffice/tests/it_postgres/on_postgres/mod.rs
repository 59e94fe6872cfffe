//! Tests that need PostgreSQL. Where it is not installed, `make test` skips them by the name of this module.

#[path = "../../it/api_auth.rs"]
mod api_auth;
#[path = "../../it/api_bodies.rs"]
mod api_bodies;
#[path = "../../it/api_bookings.rs"]
mod api_bookings;
#[path = "../../it/api_events.rs"]
mod api_events;
#[path = "../../it/api_lists.rs"]
mod api_lists;
#[path = "../../it/api_payments.rs"]
mod api_payments;
#[path = "../../it/api_responses.rs"]
mod api_responses;
#[path = "../../it/api_roles.rs"]
mod api_roles;
#[path = "../../it/booking_lifecycle.rs"]
mod booking_lifecycle;
#[path = "../../it/race.rs"]
mod race;
#[path = "../../it/readers.rs"]
mod readers;
#[path = "../../it/shutdown.rs"]
mod shutdown;

mod bad_log;
mod commands;
mod commit_faults;
mod failover;
mod instances;
mod migrations;
mod on_redis;
mod row_locks;
mod slow_reads;
