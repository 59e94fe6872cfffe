-- Updates the counters of an event. Guarded by the ledger number that was loaded: no other transaction has
-- written since.
UPDATE events SET {event_counters = ?3} WHERE id = ?1 AND {guard sequence-check: seq = ?2}
