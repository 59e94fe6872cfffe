-- Entries of an event by their numbers, for the audit. Served by the primary key.
SELECT {ledger}
FROM ledger WHERE event_id = $1 AND seq = ANY ($2::bigint[]) ORDER BY seq
