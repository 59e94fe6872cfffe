//! What callers get while the task that speaks of locks is being restarted. A process of its own: a panic on demand
//! concerns every instance in it.

mod on_redis;
