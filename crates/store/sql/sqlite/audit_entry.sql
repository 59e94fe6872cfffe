-- One entry of an event, for the audit. Served by the primary key.
SELECT {ledger}
FROM ledger WHERE event_id = ?1 AND seq = ?2
