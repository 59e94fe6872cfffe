-- Updates a refund that was settled. Guarded by the status that was loaded.
UPDATE refunds SET status = ?2, provider_reference = ?3, settled_at = ?4 WHERE id = ?1 AND status = ?5
