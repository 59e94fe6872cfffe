//! Lock requests while the lock task is being restarted. A test binary of its own, because an injected panic
//! affects every instance in the process.

mod on_redis;
