//! Deletes idempotency keys, with their stored responses, that are older than 24 hours.

use std::sync::Arc;

use async_trait::async_trait;
use store::IDEMPOTENCY_TTL_SECONDS;

use super::Chore;
use crate::limit::CHORE_PAGE;
use crate::{Engine, Error};

pub(crate) struct KeyExpiry;

#[async_trait]
impl Chore for KeyExpiry {
    fn name(&self) -> &'static str {
        "key-expiry"
    }

    async fn run_once(&mut self, engine: &Arc<Engine>) -> Result<(), Error> {
        let before = engine.now().minus_seconds(IDEMPOTENCY_TTL_SECONDS);
        while engine.ports.store.prune_keys(before, CHORE_PAGE).await? == u64::from(CHORE_PAGE) {}
        Ok(())
    }
}
