-- Updates the counters of a ticket type. Served by the primary key.
UPDATE ticket_types SET {ticket_type_counters = ?3} WHERE event_id = ?1 AND place = ?2
