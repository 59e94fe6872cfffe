-- The tickets of an event that a user holds. Served by the primary key.
SELECT tickets FROM user_limits WHERE event_id = ?1 AND user_id = ?2
