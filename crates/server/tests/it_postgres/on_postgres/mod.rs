//! Tests that need PostgreSQL; where it is not installed, `make test` skips what has its name in its path.

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
#[path = "../../it/api_order.rs"]
mod api_order;
#[path = "../../it/api_payments.rs"]
mod api_payments;
#[path = "../../it/api_roles.rs"]
mod api_roles;
#[path = "../../it/booking_life.rs"]
mod booking_life;
#[path = "../../it/race.rs"]
mod race;
#[path = "../../it/readers.rs"]
mod readers;
#[path = "../../it/shutdown.rs"]
mod shutdown;

mod bad_log;
mod busy_rows;
mod commands;
mod cuts;
mod instances;
mod migrations;
mod on_redis;
mod slow_reads;
mod standbys;
