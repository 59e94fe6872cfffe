-- The tickets of an event that a user holds. Served by the primary key.
SELECT event_id, user_id, tickets FROM user_limits WHERE event_id = ?1 AND user_id = ?2
