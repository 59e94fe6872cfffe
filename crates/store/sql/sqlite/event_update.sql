-- Updates the counters of an event. Guarded by the ledger number that was loaded: no other transaction has
-- written since.
UPDATE events SET capacity = ?2, held = ?3, sold = ?4, seq = ?5, last_at = ?6, pending = ?7, confirmed = ?8,
       cancelled = ?9, expired = ?10, revenue = ?11
WHERE id = ?1 AND seq = ?12
