-- Updates the counters of a ticket type. Served by the primary key.
UPDATE ticket_types SET held = ?3, sold = ?4 WHERE event_id = ?1 AND place = ?2
