-- The ledger of an event after a given entry, oldest first. Served by the primary key.
SELECT {ledger}
FROM ledger WHERE event_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3
