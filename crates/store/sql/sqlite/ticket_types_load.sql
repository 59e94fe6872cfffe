-- The ticket types of an event, in the order that its organiser chose. Served by the primary key.
SELECT {ticket_type} FROM ticket_types WHERE event_id = ?1 ORDER BY place
