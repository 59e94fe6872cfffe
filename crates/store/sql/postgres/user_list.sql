-- Every counted user of an event, for the audit. Served by the primary key.
SELECT user_id, tickets FROM user_limits WHERE event_id = $1
