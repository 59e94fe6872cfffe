-- Writes the new count of a user, with the limit that the database enforces.
INSERT INTO user_limits (event_id, user_id, tickets, max_tickets) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (event_id, user_id) DO UPDATE SET tickets = ?3, max_tickets = ?4
