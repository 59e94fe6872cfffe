-- Writes the new count of a user, with the limit that the database enforces.
INSERT INTO user_limits ({user_limit}) VALUES ({user_limit ?1})
ON CONFLICT (event_id, user_id) DO UPDATE SET tickets = excluded.tickets, max_tickets = excluded.max_tickets
